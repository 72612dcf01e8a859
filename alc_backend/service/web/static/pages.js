"use strict";

// What changes on a page is fetched by htmx (hx-get in the templates). Two things must survive it:
// a button that is being pressed, and parts that have not changed, where somebody may be reading.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (document.querySelector("button:active")) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const { target, fragment } = event.detail;
  const fresh = fragment.firstElementChild;
  const same =
    target.id === "quality" // its plots are drawn here
      ? fresh.dataset.rounds === target.dataset.rounds
      : fresh.outerHTML === target.outerHTML;
  if (same) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:afterSettle", drawPlots);
document.addEventListener("DOMContentLoaded", drawPlots);
document.addEventListener("change", (event) => {
  if (event.target.form?.hasAttribute("data-at-once")) event.target.form.requestSubmit();
});
document.addEventListener("submit", () => {
  for (const button of document.querySelectorAll("button")) button.disabled = true;
});
for (const select of document.querySelectorAll("form[data-at-once] select")) {
  const shown = [...select.options].findIndex((option) => option.defaultSelected);
  if (select.selectedIndex !== Math.max(shown, 0)) {
    select.form.requestSubmit(); // chosen before this script was there
  }
}
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // buttons that were disabled when the page was left
});

// Plots: data-rounds is {x: {name: [..]}, y: [{label, values}]}; each .plot names its x axis.
let drawn = "";
let plots = [];

function drawPlots() {
  const source = document.getElementById("quality");
  if (!source || !window.uPlot || source.dataset.rounds === drawn) return;
  drawn = source.dataset.rounds;
  const data = JSON.parse(drawn);
  for (const plot of plots) plot.destroy();
  plots = [...document.querySelectorAll(".plot")].map((place) => plotOf(place, data));
}

function plotOf(place, data) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
  };
  return new uPlot(
    {
      ...sizeOf(place),
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      scales: { x: { time: false, range: (_, low, high) => [Math.min(0, low), high || 1] } },
      axes: [
        { ...axis, size: 26, label: place.dataset.label, labelSize: 18, labelGap: 2 },
        { ...axis, size: 46, values: (_, splits) => splits.map((value) => value.toFixed(2)) },
      ],
      series: [
        {},
        ...data.y.map((row, turn) => ({
          label: row.label,
          stroke: colour(`--line-${turn + 1}`),
          width: 2,
          spanGaps: true,
          points: { show: true, size: 7, fill: colour(`--line-${turn + 1}`) },
        })),
      ],
    },
    sorted([data.x[place.dataset.x], ...data.y.map((row) => row.values)]),
    place,
  );
}

// In the order of x: after withdrawals a later round may have fewer answers before it.
function sorted(columns) {
  const order = columns[0].map((_, turn) => turn).sort((a, b) => columns[0][a] - columns[0][b]);
  return columns.map((column) => order.map((turn) => column[turn]));
}

function sizeOf(place) {
  return { width: Math.floor(place.clientWidth), height: Math.floor(place.clientHeight) };
}

window.addEventListener("resize", () => {
  for (const plot of plots) plot.setSize(sizeOf(plot.root.parentElement));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawn = "";
  drawPlots();
});
