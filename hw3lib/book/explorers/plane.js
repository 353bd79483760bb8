const find = selector => root.querySelector(selector);
const plane = find(".plane"), mark = find(".here"), out = find("output");
const tiles = find(".tiles"), layer = find(".layer"), strip = find(".strip");
const large = find(".picture canvas"), slider = find("input[type=range]");
const [h, w] = s.size, image = new Image();
const COLOURS = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4",
  "#949494", "#ece133", "#56b4e9"];
let row = Math.floor(s.rows / 2), column = Math.floor(s.columns / 2), over = "none";
let walk = [[row, 0], [row, s.columns - 1]];

const within = (v, n) => Math.max(0, Math.min(n - 1, v));
const number = v => v.toFixed(2).replace("-", "\u2212");
const draw = (pen, r, c, x) =>
  pen.drawImage(image, c * w, r * h, w, h, x, 0, w, h);
const onWalk = t => walk[0].map((from, i) => Math.round(from + t * (walk[1][i] - from)));

function show(r, c) {
  row = within(r, s.rows); column = within(c, s.columns);
  draw(large.getContext("2d"), row, column, 0);
  mark.style.cssText = "left:" + 100 * column / s.columns + "%;top:" + 100 * row / s.rows +
    "%;width:" + 100 / s.columns + "%;height:" + 100 / s.rows + "%";
  out.textContent = "z\u2081 = " + number(s.z1[column]) + ", z\u2082 = " + number(s.z2[row]) +
    ". " + s.captions[row * s.columns + column];
}

function cover() {
  // Text of the layers keeps its size on the screen.
  const size = layer.clientWidth || 448, step = size / s.columns, rise = size / s.rows;
  const scale = Math.max(1, window.devicePixelRatio || 1);
  layer.width = layer.height = Math.round(size * scale);
  const pen = layer.getContext("2d");
  pen.scale(scale, scale);
  pen.textAlign = "center"; pen.textBaseline = "middle";
  pen.font = "bold " + Math.max(9, .7 * step) + "px sans-serif";
  if (over === "classes") s.classes.forEach((k, i) => {
    const x = i % s.columns * step, y = Math.floor(i / s.columns) * rise;
    pen.globalAlpha = .6; pen.fillStyle = COLOURS[k];
    pen.fillRect(x, y, step, rise);
    pen.globalAlpha = 1; pen.fillStyle = "#fff";
    pen.fillText(k, x + step / 2, y + rise / 2);
  });
  if (over === "codes") {
    pen.globalAlpha = .7; pen.fillStyle = "#000";
    pen.fillRect(0, 0, size, size);
    pen.globalAlpha = 1; pen.font = "bold 10px sans-serif";
    s.codes[2].forEach((k, i) => {
      pen.fillStyle = COLOURS[k];
      pen.fillText(k, s.codes[0][i] * size, (1 - s.codes[1][i]) * size);
    });
  }
  pen.beginPath();
  walk.forEach(([r, c]) => pen.lineTo((c + .5) * step, (r + .5) * rise));
  pen.strokeStyle = "#e69f00"; pen.lineWidth = 2; pen.stroke();
  const ends = strip.getContext("2d"), num = 12;
  strip.width = num * w; strip.height = h;
  for (let i = 0; i < num; i++) draw(ends, ...onWalk(i / (num - 1)), i * w);
}

function keep(on) { root.classList.toggle("pinned", on); }

function point(event) {
  if (event.type === "pointermove" && root.classList.contains("pinned")) return;
  const box = plane.getBoundingClientRect();
  show(Math.floor((event.clientY - box.top) / box.height * s.rows),
       Math.floor((event.clientX - box.left) / box.width * s.columns));
}

const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  PageUp: [-5, 0], PageDown: [5, 0], Home: [0, -s.columns], End: [0, s.columns]};
plane.addEventListener("pointermove", point);
plane.addEventListener("pointerdown", point);
plane.addEventListener("click", () => keep());
plane.addEventListener("keydown", event => {
  const move = moves[event.key];
  if (event.altKey || event.ctrlKey || event.metaKey || !(move || event.key === "Enter")) return;
  event.preventDefault(); event.stopPropagation();
  if (move) show(row + move[0], column + move[1]); else keep();
});
root.querySelectorAll(".layers input").forEach(input => input.addEventListener("input", () => {
  over = input.value; cover();
}));
function along() {
  const percent = 5 * slider.value + "%";
  find(".value").textContent = percent;
  slider.setAttribute("aria-valuetext", percent);
}
slider.addEventListener("input", () => {
  along(); keep(true); show(...onWalk(slider.value / slider.max));
});
root.querySelectorAll("button").forEach((button, i) => button.addEventListener("click", () => {
  walk[i] = [row, column];
  slider.value = i * slider.max; along(); cover();
}));
addEventListener("resize", cover);

image.src = "data:image/png;base64," + s.png;
image.decode().then(() => {
  large.width = w; large.height = h;
  tiles.width = s.columns * w; tiles.height = s.rows * h;
  tiles.getContext("2d").drawImage(image, 0, 0);
  const chosen = find(".layers input:checked");
  over = chosen ? chosen.value : over;
  along(); show(row, column); cover();
  root.dataset.ready = "";
});
