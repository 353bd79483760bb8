// The claims: shown are those that have all words of the search and what the menus choose.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.claims-filter");
  if (!form) return;
  const tables = [...document.querySelectorAll("table.claims")].map((table) => {
    const box = table.closest(".pst-scrollable-table-container") ?? table;
    let title = box.previousElementSibling;
    while (title && !title.matches(".claims-question")) title = title.previousElementSibling;
    return { box, title, rows: [...table.tBodies[0].rows] };
  });
  const total = tables.reduce((sum, { rows }) => sum + rows.length, 0);

  function filter() {
    const { words, ...menus } = Object.fromEntries(new FormData(form));
    const sought = words.toLowerCase().split(/\s+/).filter(Boolean);
    const classes = Object.entries(menus).filter(([, v]) => v).map(([k, v]) => `${k}-${v}`);
    let shown = 0;
    for (const { box, title, rows } of tables) {
      const text = title.textContent.toLowerCase();
      for (const row of rows) {
        const all = `${text} ${row.textContent.toLowerCase()}`;
        row.hidden = !classes.every((name) => row.classList.contains(name))
          || !sought.every((word) => all.includes(word));
      }
      const left = rows.filter((row) => !row.hidden).length;
      box.hidden = title.hidden = !left;
      shown += left;
    }
    form.querySelector("output").textContent = `${shown} of ${total} claims`;
  }

  // A link may ask for some: claims.html?verdict=fails
  for (const [name, value] of new URLSearchParams(location.search))
    if (form.elements[name]) form.elements[name].value = value;
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
});
