// What a run did, as tables: tools, the web, models and files; its own and of the runs that work for it.

import {h, replaceFor} from "./dom.js";
import {bytes, clock, count, money, short, shown, span, tokens, undigested} from "./format.js";
import {actButton, card, foreign, link, state, table} from "./parts.js";

export const LISTS = ["tools", "web", "llm", "files"];
const ROWS = 12; // of each table, the newest, until somebody asks for more
const STEP = 10; // times as many each time

const at = {name: "At", class: "short", cell: (each) => (each.at ? clock(each.at) : "–")};
const who = {name: "By", class: "short", cell: (each) => link(`/runs/${encodeURIComponent(each.run)}`, foreign(each.mad, 60))};
const took = {name: "Took", class: "number short", cell: (each) => span(each.seconds)};

/** How something ended, by shape, word and colour. */
function ending(word) {
  const bad = !["ok", "done", "finished", "open"].includes(word);
  return state(word === "open" ? "running" : bad ? (word === "denied" ? "warn" : "bad") : "good", word === "open" ? "at work" : shown(word, 60));
}

const TABLES = {
  tools: ["Tools", [at, {name: "Tool", class: "short", cell: (each) => h("code", null, shown(each.name, 80))}, {name: "With", class: "cut", cell: (each) => h("span", {class: "clamp", title: shown(each.detail, 600)}, foreign(undigested(each.detail), 300))},
    {name: "Outcome", class: "short", cell: (each) => ending(each.outcome)}, took, who]],
  web: ["Web requests", [at, {name: "Method", class: "short", cell: (each) => h("code", null, shown(each.method, 10))}, {name: "Address", class: "cut", cell: (each) => [foreign(each.url, 400), each.reason && h("p", {class: "quiet-text", title: shown(each.reason, 300)}, foreign(each.reason, 300))]},
    {name: "Outcome", class: "short", cell: (each) => ending(each.outcome === "done" && each.status ? (each.status < 400 ? "done" : `answer ${each.status}`) : each.outcome)},
    {name: "Came", class: "number short", cell: (each) => bytes(each.received)}, took, who]],
  llm: ["Model calls", [at, {name: "Model", class: "cut", cell: (each) => h("code", null, shown(each.alias === each.model ? each.model : `${each.alias} → ${each.model}`, 90))},
    {name: "In", class: "number short named", cell: (each) => tokens(each.input)}, {name: "Cached", class: "number short named", cell: (each) => tokens(each.cached)}, {name: "Out", class: "number short named", cell: (each) => tokens(each.output)},
    {name: "Cost", class: "number short", cell: (each) => [money(each.usd), each.assumed && " at most"]}, {name: "Outcome", class: "short", cell: (each) => ending(each.outcome)}, took, who]],
  files: ["Files", [at, {name: "File", class: "cut", cell: (each) => h("span", {class: "mono"}, foreign(/^sha256:/.test(each.path) ? short(each.path, 23) : each.path || "(no name)", 300))}, {name: "How", class: "short", cell: (each) => each.how},
    {name: "Lines", class: "number short", cell: (each) => (each.added === null && each.removed === null ? "–" : [h("span", {class: "added"}, `+${each.added ?? 0}`), " ", h("span", {class: "removed"}, `−${each.removed ?? 0}`)])},
    {name: "Size", class: "number short", cell: (each) => bytes(each.size)}, who]],
};

/** `{node, draw(activity)}` for one run; `older` gets what it did before what is shown. */
export function activityOf(run, older) {
  const node = h("div", {class: "stack"});
  const wide = new Map(); // how many rows, by table

  function draw(doing) {
    const families = doing.children.length > 0;
    replaceFor([doing.tools, doing.web, doing.llm, doing.files, doing.before, [...wide.values()]], node, () => [LISTS.filter((each) => doing[each].length).map((name) => {
      const [title, columns] = TABLES[name];
      const all = [...doing[name]].sort((a, b) => (a.at || Infinity) - (b.at || Infinity) || 0);
      const most = wide.get(name) ?? ROWS;
      const rows = all.slice(-most);
      const own = families || all.some((each) => each.run !== run) ? columns : columns.filter((each) => each !== who);
      return card([title, h("span", {class: "tag quiet"}, total(name, all))], {}, table(own, rows, {label: title}),
        rows.length < all.length && h("div", {class: "pager"}, h("span", null, `the last ${rows.length} of ${all.length}`), h("button", {type: "button", class: "button small", onclick: () => {
          wide.set(name, most * STEP);
          draw(doing);
        }}, "More")));
    }), doing.before && h("p", null, actButton("What it did before", older, {kind: "small"}))]);
  }

  return {node, draw};
}

function total(name, all) {
  if (name !== "llm") return String(all.length);
  const used = all.reduce((sum, each) => sum + each.input + each.output, 0);
  return `${count(all.length, "call")}, ${tokens(used)} tokens, ${money(all.reduce((sum, each) => sum + each.usd, 0))}`;
}

/** The newest page of activity with what was asked for before it. */
export function joined(past, newest) {
  if (!past) return newest;
  return {...newest, before: past.before, ...Object.fromEntries(LISTS.map((each) => [each, [...past[each], ...newest[each]]]))};
}
