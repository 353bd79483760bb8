// What belongs to a state lies at the sum of its positions times their strides; see panels.py.
const state = [...s.start];
const at = strides => strides.reduce((sum, step, axis) => sum + step * state[axis], 0);
const panels = root.querySelectorAll(".panel"), out = root.querySelector("output");

function tile(sheet, index, canvas) {
  const [h, w] = sheet.size;
  canvas.height = h; canvas.width = w;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.drawImage(sheet.image, index % sheet.columns * w, Math.floor(index / sheet.columns) * h,
    w, h, 0, 0, w, h);
  return pen;
}

const show = {
  picture(p, panel) { tile(p.sheet, at(p.strides), panel.querySelector("canvas")); },

  attacked(p, panel) {
    const [change, picture] = panel.querySelectorAll("canvas");
    const pen = tile(p.original, at(p.strides[0]), picture);
    const sum = pen.getImageData(0, 0, picture.width, picture.height);
    const by = pen.createImageData(sum);
    const wide = tile(p.change, at(p.strides[1]), change);
    const moved = wide.getImageData(0, 0, change.width, change.height).data;
    const most = moved.reduce((m, v, i) => i % 4 ? m : Math.max(m, Math.abs(v - 128)), 1);
    sum.data.forEach((v, i) => {
      // The colours of a change lie side by side, each a grey pixel of its own.
      const step = i % 4 < 3 ? moved[4 * (i - (i >> 2))] - 128 : 0;
      sum.data[i] = v + step;
      by.data[i] = i % 4 < 3 ? 128 + 127 * step / most : 255;
    });
    [change.height, change.width] = p.original.size;
    change.getContext("2d").putImageData(by, 0, 0);
    pen.putImageData(sum, 0, 0);
  },

  bars(p, panel) {
    const shares = p.shares[at(p.strides[0])], truth = p.truth[at(p.strides[1])];
    const top = shares.indexOf(Math.max(...shares));
    const percent = k => (shares[k] / 10).toFixed(1) + "%";
    const names = [...panel.querySelectorAll("li")].map((row, k) => {
      const [name, bar, number] = row.children;
      bar.style.setProperty("--share", shares[k] / 10 + "%");
      number.textContent = percent(k);
      row.classList.toggle("top", k === top);
      row.classList.toggle("truth", k === truth);
      return name.textContent;
    });
    return "The network says " + names[top] + ", " + percent(top) + ". " +
      (top === truth ? "That is right." : "The picture shows: " + names[truth] + ".");
  },

  chart(p, panel) {
    const [x, y] = p.points[at(p.strides[0])], mark = panel.querySelector(".mark");
    mark.setAttribute("cx", x); mark.setAttribute("cy", y);
    panel.querySelectorAll(".curve").forEach((curve, i) =>
      curve.classList.toggle("chosen", i === at(p.strides[1])));
  },
};

function update() {
  const said = s.panels.map((p, i) => show[p.kind](p, panels[i])).filter(Boolean);
  if (s.captions) said.unshift(s.captions.texts[at(s.captions.strides)]);
  out.textContent = said.join(" ");
}

root.querySelectorAll(".controls > *").forEach((control, axis) => {
  const inputs = [...control.querySelectorAll("input")];
  const move = i => {
    state[axis] = i;
    if (inputs.length > 1 || inputs[0].type === "radio") return;
    inputs[0].setAttribute("aria-valuetext", s.values[axis][i]);
    control.querySelector(".value").textContent = s.values[axis][i];
  };
  // A browser that comes back to the page may have kept what was chosen.
  const chosen = () => inputs[0].type === "range" ? Number(inputs[0].value)
    : inputs.findIndex(input => input.checked);
  control.addEventListener("input", () => { move(chosen()); update(); });
  move(chosen());
});

const sheets = s.panels.flatMap(p => [p.sheet, p.original, p.change]).filter(Boolean);
Promise.all(sheets.map(sheet => {
  sheet.image = new Image();
  sheet.image.src = "data:image/png;base64," + sheet.png;
  return sheet.image.decode();
})).then(() => { update(); root.dataset.ready = ""; });
