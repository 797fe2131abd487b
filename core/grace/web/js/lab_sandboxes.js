// The sandboxes there are now, whose they are, and the pools that keep some warm.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, span} from "./format.js";
import {card, empty, figure, foreign, link, state, table, when} from "./parts.js";
import {runHref} from "./view_runs.js";

export async function part(_params, page) {
  const node = h("div", {class: "stack"});
  let busy = false;

  async function look() {
    if (busy || document.hidden) return;
    busy = true;
    try {
      draw(await get("/lab/pool", {}, {signal: page.signal}));
    } finally {
      busy = false;
    }
  }

  function draw({pools, sandboxes, counts}) {
    replace(node, h("dl", {class: "figures"}, figure("At work", String(counts.running)), figure("Waiting", String(counts.queued)), figure("Sandboxes", String(sandboxes.length)), figure("Warm", String(pools.reduce((sum, each) => sum + each.ready, 0)))),
      card("Sandboxes", {}, sandboxes.length ? table([
        {name: "Sandbox", class: "short", cell: (each) => h("span", {class: "mono"}, foreign(each.name, 80))}, {name: "MAD", class: "short", cell: (each) => foreign(each.mad, 60)}, {name: "State", class: "short", cell: (each) => state(each.run ? each.state : each.state === "warm" ? "quiet" : "good", each.state)},
        {name: "Run", class: "cut", cell: (each) => each.run ? [link(runHref(each.run), h("span", {class: "mono"}, each.run)), " ", foreign(each.title ?? "", 120)] : ""}, {name: "Begun", class: "number short", cell: (each) => when(each.started)},
        {name: "Has left", class: "number short named", cell: (each) => each.deadline ? span(Math.max(0, each.deadline - Date.now() / 1000)) : "–"}], sandboxes, {label: "Sandboxes"}) : empty("No sandbox is open", "One is made for each run, and destroyed with it.")),
      card("Pools", {}, pools.length ? table([{name: "MAD", class: "short", cell: (each) => foreign(each.mad, 60)}, {name: "Ready", class: "number short named", cell: (each) => String(each.ready)}, {name: "Starting", class: "number short named", cell: (each) => String(each.starting)}, {name: "Handed over", class: "number short named", cell: (each) => String(each.claimed)},
        {name: "Failures", class: "cut", cell: (each) => each.failures ? [count(each.failures, "failure"), each.last_error ? ": " : "", foreign(each.last_error, 300)] : "none"}], pools, {label: "Pools"}) : empty("Nothing is kept warm", "A profile with warm = 1 or more keeps so many sandboxes ready, so that a run begins in milliseconds.")));
  }

  await look();
  const soon = () => look().catch((error) => page.signal.aborted || console.warn(error));
  return {node, topics: ["lab", "runs"], update: soon, refresh: soon};
}
