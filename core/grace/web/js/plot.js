// A line over time, drawn by hand: two axes, one line, and a reading that the mouse and the arrow keys move.
//
// Why not Playfair or a library: a plot changes every second while a run works, Playfair draws in a sandbox of its own,
// and the smallest library weighs more than this whole page. What is drawn is numbers of the core's own measuring.

import {h, replace} from "./dom.js";
import {span} from "./format.js";

const HEIGHT = 132;
const LEFT = 56;
const BOTTOM = 22;
const TOP = 8;
const RIGHT = 8;
const ROWS = 40; // of the table below

/** `values`: one each `step` seconds from the start. `format(value)` says one in words; the axis has round numbers of
 *  `unit`, and is at least `least` high. */
export function plot({title, values, step, format, least = 0, unit = 1}) {
  const drawing = h("div", {class: "plot-drawing"});
  const reading = h("output", {class: "plot-reading"});
  const table = h("div", {class: "plot-table"});
  const slider = h("div", {class: "plot-slider", tabindex: "0", role: "slider", "aria-label": `${title}: read at a time`, "aria-orientation": "horizontal"});
  const node = h("figure", {class: "plot"}, h("figcaption", null, h("span", null, title), reading), h("div", {class: "plot-frame"}, drawing, slider),
    h("details", {ontoggle: (event) => event.target.open && tabulate()}, h("summary", null, "As numbers"), table));
  let at = null;
  let width = 0;

  const high = () => nice((Math.max(least, ...values) || unit) / unit) * unit;
  const x = (place) => LEFT + (width - LEFT - RIGHT) * (values.length < 2 ? 0 : place / (values.length - 1));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / high());

  function draw() {
    if (!width) return;
    const flat = values.length === 1 ? [[LEFT, values[0]], [width - RIGHT, values[0]]] : values.map((value, place) => [x(place), value]);
    const points = flat.map(([left, value]) => `${left.toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const ticks = [0, high() / 2, high()];
    const end = (values.length - 1) * step;
    const marks = values.length < 2 ? [] : [0, 0.5, 1];
    replace(drawing, h("svg:svg", {viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": summary()},
      ticks.map((each) => [h("svg:line", {class: "plot-grid", x1: LEFT, x2: width - RIGHT, y1: y(each), y2: y(each)}),
        h("svg:text", {x: LEFT - 8, y: y(each) + 4, "text-anchor": "end"}, format(each))]),
      marks.map((each) => h("svg:text", {x: LEFT + (width - LEFT - RIGHT) * each, y: HEIGHT - 4, "text-anchor": ["start", "middle", "end"][each * 2]}, each ? span(end * each) : "0 s")),
      values.length > 0 && h("svg:polygon", {class: "plot-area", points: `${LEFT},${y(0)} ${points} ${width - RIGHT},${y(0)}`}),
      h("svg:polyline", {class: "plot-line", points}),
      at !== null && [h("svg:line", {class: "plot-cursor", x1: x(at), x2: x(at), y1: TOP, y2: HEIGHT - BOTTOM}), h("svg:circle", {class: "plot-dot", cx: x(at), cy: y(values[at]), r: 3.5})]));
    reading.textContent = at === null ? lastWord() : `${span(at * step)}: ${format(values[at])}`;
    slider.setAttribute("aria-valuemin", "0");
    slider.setAttribute("aria-valuemax", String(Math.max(0, values.length - 1)));
    slider.setAttribute("aria-valuenow", String(at ?? Math.max(0, values.length - 1)));
    slider.setAttribute("aria-valuetext", at === null ? lastWord() : reading.textContent);
  }

  const lastWord = () => (values.length ? `most ${format(Math.max(...values))}` : "");
  const summary = () => values.length
    ? `${title} over ${span((values.length - 1) * step)}: least ${format(Math.min(...values))}, most ${format(Math.max(...values))}, last ${format(values.at(-1))}`
    : `${title}: nothing measured yet`;

  function tabulate() {
    const every = Math.max(1, Math.ceil(values.length / ROWS));
    const some = values.map((value, place) => [place, value]).filter(([place]) => place % every === 0 || place === values.length - 1);
    replace(table, h("table", {class: "rows stays", "aria-label": title}, h("thead", null, h("tr", null, h("th", {scope: "col"}, "After"), h("th", {scope: "col", class: "number"}, title))),
      h("tbody", null, some.map(([place, value]) => h("tr", null, h("td", null, span(place * step)), h("td", {class: "number"}, format(value)))))));
  }

  function read(place) {
    at = place === null || !values.length ? null : Math.min(values.length - 1, Math.max(0, place));
    draw();
  }

  slider.addEventListener("pointermove", (event) => {
    const box = slider.getBoundingClientRect();
    read(Math.round(((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (values.length - 1)));
  });
  slider.addEventListener("pointerleave", () => document.activeElement !== slider && read(null));
  slider.addEventListener("blur", () => read(null));
  slider.addEventListener("keydown", (event) => {
    const now = at ?? values.length - 1;
    const to = {ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageDown: now - 10, PageUp: now + 10, Home: 0, End: values.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    read(to);
  });
  new ResizeObserver(([entry]) => {
    const next = Math.floor(entry.contentRect.width);
    if (next === width) return;
    width = next;
    draw();
  }).observe(drawing);

  return {node, set(next, seconds = step) {
    values = next;
    step = seconds;
    if (at !== null) at = Math.min(at, values.length - 1);
    draw();
  }};
}

/** The next 1, 2, 4, 5 or 8 times a power of ten. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].find((each) => each * power >= value * 0.999) * power;
}
