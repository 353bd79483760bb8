// Paper shows what a screen folds: reveals are open, and solutions stand at the end of their page.
(() => {
  const undo = [];

  function openFolds() {
    for (const fold of document.querySelectorAll("details:not(.fold, [open])")) {
      fold.open = true;
      undo.push(() => { fold.open = false; });
    }
  }

  function moveSolutions(article) {
    const solutions = article.querySelectorAll(".admonition.solution");
    if (!solutions.length) return;
    const end = document.createElement("section");
    const title = article.querySelector("section > :is(h1, h2)");
    const level = Number(title.tagName[1]) + 1;
    end.innerHTML = `<h${level}>Solutions</h${level}>`;
    for (const solution of solutions) {
      const mark = document.createComment("solution");
      solution.replaceWith(mark);
      end.append(solution);
      undo.push(() => mark.replaceWith(solution));
    }
    undo.push(() => end.remove());
    article.append(end);
  }

  function inLight() {
    const { theme } = document.documentElement.dataset;
    document.documentElement.dataset.theme = "light";
    undo.push(() => { document.documentElement.dataset.theme = theme; });
  }

  addEventListener("beforeprint", () => {
    inLight();
    openFolds();
    document.querySelectorAll("article.bd-article").forEach(moveSolutions);
  });
  addEventListener("afterprint", () => {
    while (undo.length) undo.pop()();
  });
})();
