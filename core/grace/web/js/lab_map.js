// The map: four columns (people, MADs, ports, what lies beyond), drawn by hand from the door's tally, anew each second
// while it is looked at. The table below says the same in words.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, money, shown, span} from "./format.js";
import {card, empty, foreign, table, when} from "./parts.js";

const LAYERS = [["person", "People"], ["mad", "MADs"], ["port", "Ports"], ["beyond", "Models and hosts"]];
const LAYER = {person: 0, mad: 1, core: 1, port: 2, model: 3, host: 3};
const WIDTH = 1120;
const BOX = {width: 176, height: 40, gap: 14, top: 34};
const MOST = 16; // of one column; those with the most to say
const EVERY_MS = 950;
const RATES = 10; // labels in the drawing

export async function part(_params, page) {
  const drawing = h("div", {class: "map", tabindex: "0", role: "region", "aria-label": "Map of the lab"});
  const list = h("div", null);
  let busy = false;
  let last = -Infinity;

  async function look() {
    if (busy || document.hidden || performance.now() - last < EVERY_MS) return;
    busy = true;
    try {
      const map = await get("/lab/map", {}, {signal: page.signal});
      last = performance.now();
      draw(map);
    } catch (error) {
      if (!page.signal.aborted) console.warn(error);
    } finally {
      busy = false;
    }
  }

  function draw(map) {
    replace(drawing, picture(map));
    const edges = [...map.edges].sort((a, b) => b.minute - a.minute || b.last - a.last).slice(0, 100);
    replace(list, edges.length ? table([
      {name: "From", class: "short", cell: (each) => foreign(each.from.replace(":", " "), 120)}, {name: "To", class: "cut", cell: (each) => foreign(each.to.replace(":", " "), 120)},
      {name: "Last minute", class: "number short named", cell: (each) => String(each.minute)}, {name: "Since the start", class: "number short named", cell: (each) => String(each.count)},
      {name: "Failed", class: "number short named", cell: (each) => String(each.failed)}, {name: "Takes", class: "number short named", cell: (each) => each.middle_ms === null ? "–" : span(each.middle_ms / 1000)},
      {name: "Last", class: "number short", cell: (each) => when(each.last)}], edges, {label: "Who talks to whom"}) : empty("Nobody has spoken since the core started", "Ask something of a MAD, and it appears here.", "madlab ask \"what can you do?\""));
  }

  await look();
  return {node: h("div", {class: "stack"}, card("As it runs now", {}, drawing), card("The same as a table", {}, list)), topics: ["lab"], update: (event) => event.name === "lab" && look(), refresh: look};
}

function picture(map) {
  const talk = new Map();
  for (const each of map.edges) for (const end of [each.from, each.to]) talk.set(end, (talk.get(end) ?? 0) + each.minute * 1000 + each.count);
  const columns = LAYERS.map(() => []);
  for (const each of map.nodes) columns[LAYER[each.kind] ?? 1].push(each);
  const place = new Map();
  const left = columns.map((_, layer) => 8 + (layer * (WIDTH - BOX.width - 16)) / (LAYERS.length - 1));
  let left_out = 0;
  columns.forEach((nodes, layer) => {
    nodes.sort((a, b) => (talk.get(b.id) ?? 0) - (talk.get(a.id) ?? 0) || a.id.localeCompare(b.id));
    left_out += Math.max(0, nodes.length - MOST);
    nodes.splice(MOST);
  });
  const tall = Math.max(1, ...columns.map((each) => each.length));
  const height = BOX.top + tall * (BOX.height + BOX.gap) + 8;
  columns.forEach((nodes, layer) => nodes.forEach((node, row) => {
    const free = (tall - nodes.length) * (BOX.height + BOX.gap);
    place.set(node.id, {layer, x: left[layer], y: BOX.top + free / 2 + row * (BOX.height + BOX.gap)});
  }));
  const edges = map.edges.filter((each) => place.has(each.from) && place.has(each.to) && each.from !== each.to);
  const most = Math.max(1, ...edges.map((each) => each.minute));
  const asked = new Set(edges.map((each) => `${each.from} ${each.to}`));
  const answers = (each) => place.get(each.from).layer > place.get(each.to).layer && asked.has(`${each.to} ${each.from}`);
  const labelled = new Set(edges.filter((each) => each.minute && !answers(each)).sort((a, b) => b.minute - a.minute).slice(0, RATES));
  const told = `${count(map.nodes.length, "node")}, ${count(map.edges.length, "connection")}; the busiest: ${[...labelled].slice(0, 3).map((each) => `${each.from} to ${each.to}, ${each.minute} in the last minute`).join("; ") || "none in the last minute"}. The table below has them all.`;
  return h("div", null, h("svg:svg", {viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": shown(told, 600)},
    LAYERS.map(([, word], layer) => h("svg:text", {class: "layer", x: left[layer], y: 18}, word)),
    edges.map((each) => edge(each, place.get(each.from), place.get(each.to), most)),
    [...place].map(([id, at]) => box(map.nodes.find((each) => each.id === id), at)),
    [...labelled].map((each) => rate(each, place.get(each.from), place.get(each.to)))), left_out > 0 && h("p", {class: "note"}, `${left_out} more are in the table.`));
}

function ends(from, to) {
  const middle = BOX.height / 2;
  if (from.layer === to.layer) return [from.x + BOX.width, from.y + middle, to.x + BOX.width, to.y + middle];
  return from.layer < to.layer ? [from.x + BOX.width, from.y + middle, to.x, to.y + middle] : [from.x, from.y + middle + 6, to.x + BOX.width, to.y + middle + 6];
}

function edge(each, from, to, most) {
  const [x1, y1, x2, y2] = ends(from, to);
  const bend = from.layer === to.layer ? 40 + Math.abs(y2 - y1) / 4 : (x2 - x1) / 2;
  const d = from.layer === to.layer ? `M${x1},${y1}C${x1 + bend},${y1} ${x2 + bend},${y2} ${x2},${y2}` : `M${x1},${y1}C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
  return h("svg:path", {class: `map-edge ${each.minute ? "now" : ""} ${each.failed && each.minute ? "failed" : ""}`, d, "stroke-width": (1 + (each.minute ? 3 * Math.sqrt(each.minute / most) : 0)).toFixed(2)});
}

/** How much and how fast, beside where an edge ends, so that no two labels lie over each other. */
function rate(each, from, to) {
  const [x1, y1, x2, y2] = ends(from, to);
  const [x, y, anchor] = from.layer === to.layer ? [Math.max(x1, x2) + 34 + Math.abs(y2 - y1) / 6, (y1 + y2) / 2 + 3, "middle"] : from.layer < to.layer ? [x2 - 8, y2 - 6, "end"] : [x2 + 8, y2 + 14, "start"];
  return h("svg:text", {class: "map-rate", x, y, "text-anchor": anchor}, `${each.minute}/min${each.middle_ms === null ? "" : ` · ${span(each.middle_ms / 1000)}`}`);
}

function box(node, {x, y}) {
  const note = node.kind === "mad" ? [node.live ? count(node.live, "live run") : node.state, node.cost?.usd ? money(node.cost.usd) : ""].filter(Boolean).join(" · ") : node.kind === "port" ? node.summary : node.kind;
  const look = node.error || node.state === "waiting" ? "down" : node.live ? "works" : "";
  return h("svg:g", {class: `map-node ${node.kind} ${look}`}, h("svg:rect", {x, y, width: BOX.width, height: BOX.height, rx: 6}), h("svg:text", {x: x + 10, y: y + 17}, cut(node.name, 24)), h("svg:text", {class: "map-note", x: x + 10, y: y + 32}, cut(note ?? "", 29)));
}

const cut = (text, most) => shown(text.length > most ? `${text.slice(0, most - 1)}…` : text, most + 10);
