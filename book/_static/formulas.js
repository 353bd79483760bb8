// A formula that is wider than its column scrolls, so a keyboard has to reach it, as code and tables.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
  });
  document.querySelectorAll("mjx-container[display]").forEach((formula) => watch.observe(formula));
});
