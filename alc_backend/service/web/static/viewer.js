"use strict";

// The page of an image: a slider between the label maps before and now, and what each superpixel is.
// #hovered is a canvas over the image; its data-ids is a PNG whose colours are superpixel ids.
const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("superpixels").textContent);
const canvas = byId("hovered");
const context = canvas.getContext("2d", { willReadFrequently: true });
let ids = null;
let marked = 0;

function split() {
  const share = byId("split").value;
  byId("before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  byId("after").style.clipPath = `inset(0 0 0 ${share}%)`;
  byId("edge").style.left = `${share}%`;
}

function opacity() {
  for (const id of ["before", "after"]) byId(id).style.opacity = byId("opacity").value / 100;
}

function readIds(picture) {
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  context.clearRect(0, 0, canvas.width, canvas.height);
  ids = new Uint32Array(canvas.width * canvas.height);
  for (let turn = 0; turn < ids.length; turn++) {
    ids[turn] = data[4 * turn] + 256 * data[4 * turn + 1] + 65536 * data[4 * turn + 2];
  }
}

function mark(id) {
  if (!ids || id === marked) return;
  marked = id;
  const shown = context.createImageData(canvas.width, canvas.height);
  if (id) {
    const { width } = canvas;
    for (let turn = 0; turn < ids.length; turn++) {
      if (ids[turn] !== id) continue;
      const edge = [1, -1, width, -width, 2, -2, 2 * width, -2 * width];
      const outside = edge.some((step) => ids[turn + step] !== id);
      shown.data.set(outside ? [255, 235, 59, 255] : [255, 255, 255, 40], 4 * turn);
    }
  }
  context.putImageData(shown, 0, 0);
  const said = about[id];
  byId("hint").textContent = said
    ? `Superpixel ${id} is ${said.is}: ${said.why}.`
    : id ? `Superpixel ${id}.` : "Point at a superpixel to see who decided what.";
}

function under(event) {
  if (!ids) return 0;
  const place = canvas.getBoundingClientRect();
  const col = Math.floor(((event.clientX - place.left) / place.width) * canvas.width);
  const row = Math.floor(((event.clientY - place.top) / place.height) * canvas.height);
  const inside = row >= 0 && row < canvas.height && col >= 0 && col < canvas.width;
  return inside ? ids[row * canvas.width + col] : 0;
}

byId("split").addEventListener("input", split);
byId("opacity").addEventListener("input", opacity);
byId("viewer").addEventListener("pointermove", (event) => mark(under(event)));
byId("viewer").addEventListener("pointerdown", (event) => mark(under(event)));
for (const row of document.querySelectorAll("tr[data-superpixel]")) {
  row.addEventListener("pointerenter", () => mark(Number(row.dataset.superpixel)));
}
const below = document.querySelector(".viewer .below");
byId("viewer").style.maxWidth = `calc(65vh * ${below.getAttribute("width") / below.getAttribute("height")})`;
split();
opacity();
const picture = new Image();
picture.addEventListener("load", () => readIds(picture));
picture.src = canvas.dataset.ids;
