// The map: four columns (people, MADs, ports, what lies beyond), drawn by hand from the door's tally, anew each second
// while it is looked at. The table below says the same in words, and more: what is said to a whole conversation is in it
// alone, and how fast each of many connections is, which the drawing says of the busiest only.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, money, shown, span} from "./format.js";
import {button, card, empty, foreign, table, when} from "./parts.js";

const LAYERS = [["person", "People"], ["mad", "MADs"], ["port", "Ports"], ["beyond", "Models and hosts"]];
const LAYER = {person: 0, mad: 1, core: 1, port: 2, model: 3, host: 3};
const WIDTH = 1120;
const ROWS = 12; // of the table, until somebody asks for more
const BOX = {width: 176, height: 40, gap: 14, top: 34};
const MOST = 16; // of one column; those with the most to say
const EVERY_MS = 950;
const RATES = 8; // labels in the drawing at most, as far as there is room for them
const TO_ALL = "core:everybody"; // what is said to a conversation, and to nobody in it
const LETTER = 6.8; // width of a letter of a label, at most
const named = (id) => id === TO_ALL ? "its conversation" : id.replace(":", " ");

export async function part(_params, page) {
  const drawing = h("div", {class: "map", tabindex: "0", role: "region", "aria-label": "Map of the lab"});
  const list = h("div", null);
  let busy = false;
  let last = -Infinity;
  let rows = ROWS;

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
    const edges = [...map.edges].sort((a, b) => b.minute - a.minute || b.last - a.last);
    replace(list, edges.length ? table([
      {name: "From", class: "short", cell: (each) => foreign(named(each.from), 120)}, {name: "To", class: "cut", cell: (each) => foreign(named(each.to), 120)},
      {name: "Last minute", class: "number short named", cell: (each) => String(each.minute)}, {name: "Since the start", class: "number short named", cell: (each) => String(each.count)},
      {name: "Failed", class: "number short named", cell: (each) => String(each.failed)}, {name: "Takes", class: "number short named", cell: (each) => each.middle_ms === null ? "–" : span(each.middle_ms / 1000)},
      {name: "Last", class: "number short", cell: (each) => when(each.last)}], edges.slice(0, rows), {label: "Who talks to whom"}) : empty("Nobody has spoken since the core started", "Ask something of a MAD, and it appears here.", "madlab ask \"what can you do?\""), edges.length > rows && h("div", {class: "pager"}, h("span", null, `${rows} of ${edges.length}`), button("More", () => {
        rows *= 10;
        draw(map);
      }, {kind: "small"})));
  }

  await look();
  return {node: h("div", {class: "stack"}, card("As it runs now", {}, drawing), card("The same as a table", {}, list)), topics: ["lab"], update: (event) => event.name === "lab" && look(), refresh: look};
}

function picture(map) {
  const drawn = map.edges.filter((each) => each.to !== TO_ALL && each.from !== TO_ALL);
  const talk = new Map();
  for (const each of drawn) for (const end of [each.from, each.to]) talk.set(end, (talk.get(end) ?? 0) + each.minute * 1000 + each.count);
  const columns = LAYERS.map(() => []);
  for (const each of map.nodes) if (each.id !== TO_ALL) columns[LAYER[each.kind] ?? 1].push(each);
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
  const edges = drawn.filter((each) => place.has(each.from) && place.has(each.to) && each.from !== each.to);
  const most = Math.max(1, ...edges.map((each) => each.minute));
  const asked = new Set(edges.map((each) => `${each.from} ${each.to}`));
  const answers = (each) => place.get(each.from).layer > place.get(each.to).layer && asked.has(`${each.to} ${each.from}`);
  const labels = rates(edges.filter((each) => each.minute && !answers(each)).sort((a, b) => b.minute - a.minute), place);
  const told = `${count(place.size, "node")}, ${count(edges.length, "connection")}; the busiest: ${labels.slice(0, 3).map(({each}) => `${each.from} to ${each.to}, ${each.minute} in the last minute`).join("; ") || "none in the last minute"}. The table below has them all.`;
  return h("div", null, h("svg:svg", {viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": shown(told, 600)},
    LAYERS.map(([, word], layer) => h("svg:text", {class: "layer", x: left[layer], y: 18}, word)),
    edges.map((each) => edge(each, place.get(each.from), place.get(each.to), most)),
    [...place].map(([id, at]) => box(map.nodes.find((each) => each.id === id), at)),
    labels.map(({x, y, anchor, text}) => h("svg:text", {class: "map-rate", x, y, "text-anchor": anchor}, text))), left_out > 0 && h("p", {class: "note"}, `${left_out} more are in the table.`));
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
  return h("svg:path", {class: `map-edge ${each.minute ? "now" : ""} ${each.failed && each.minute ? "failed" : ""}`, d, "stroke-width": (1 + (each.minute ? 2 * Math.sqrt(each.minute / most) : 0)).toFixed(2)},
    h("svg:title", null, `${named(each.from)} to ${named(each.to)}: ${each.minute} in the last minute, ${each.count} since the start${each.failed ? `, ${each.failed} failed` : ""}${each.middle_ms === null ? "" : `, ${span(each.middle_ms / 1000)} each`}`));
}

/** How much and how fast, beside where an edge begins or else ends; only where it lies over no other label and no node. */
function rates(edges, place) {
  const taken = [...place.values()].map(({x, y}) => [x, y, x + BOX.width, y + BOX.height]);
  const labels = [];
  const fan = new Map(); // how many labels would like to stand at an end
  for (const each of edges) for (const end of [`${each.from} out`, `${each.to} in`]) fan.set(end, (fan.get(end) ?? 0) + 1);
  for (const each of edges) {
    if (labels.length === RATES) break;
    const text = `${each.minute}/min${each.middle_ms === null ? "" : ` · ${span(each.middle_ms / 1000)}`}`;
    const [x1, y1, x2, y2] = ends(place.get(each.from), place.get(each.to));
    const right = x2 > x1;
    const begin = [x1 + (right ? 8 : -8), y1 - 6, right ? "start" : "end"];
    const end = [x2 + (right ? -8 : 8), y2 - 6, right ? "end" : "start"];
    for (const [x, y, anchor] of fan.get(`${each.from} out`) > fan.get(`${each.to} in`) ? [end, begin] : [begin, end]) {
      const left = anchor === "start" ? x : x - text.length * LETTER;
      const area = [left, y - 11, left + text.length * LETTER, y + 3];
      if (taken.some((other) => area[0] < other[2] && other[0] < area[2] && area[1] < other[3] && other[1] < area[3])) continue;
      taken.push(area);
      labels.push({each, text, x, y, anchor});
      break;
    }
  }
  return labels;
}

function box(node, {x, y}) {
  const note = node.kind === "mad" ? [node.live ? count(node.live, "live run") : node.state, node.cost?.usd ? money(node.cost.usd) : ""].filter(Boolean).join(" · ") : node.kind === "port" ? node.summary : node.kind;
  const look = node.error || node.state === "waiting" ? "down" : node.live ? "works" : "";
  return h("svg:g", {class: `map-node ${node.kind} ${look}`}, h("svg:title", null, shown([node.name, note].filter(Boolean).join(": "), 300)), h("svg:rect", {x, y, width: BOX.width, height: BOX.height, rx: 6}), h("svg:text", {x: x + 10, y: y + 17}, cut(node.name, 20)), h("svg:text", {class: "map-note", x: x + 10, y: y + 32}, cut(note ?? "", 27)));
}

const cut = (text, most) => shown(text.length > most ? `${text.slice(0, most - 1)}…` : text, most + 10);
