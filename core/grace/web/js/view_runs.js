// All runs, the newest first, as they change; what is filtered for stands in the address.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {money, span} from "./format.js";
import {card, choice, empty, foreign, head, runState, search, table, tableRow, when, button} from "./parts.js";

const PAGE = 50;
const MOST = 500; // rows in the page at once
const STATES = ["live", "requested", "admitted", "starting", "ready", "running", "collecting", "destroyed"];
const OUTCOMES = ["succeeded", "partial", "failed", "cancelled", "timed_out", "out_of_budget", "out_of_memory", "out_of_disk", "stuck", "lost", "killed"];
const FILTERS = ["q", "mad", "state", "outcome"];

export const runHref = (id) => `/runs/${encodeURIComponent(id)}`;

/** What it cost in money, from what the run says. */
export const usd = (run) => run.cost?.usd ?? null;

/** How long it ran, or has been running. */
export const took = (run) => (run.started ? (run.ended ?? Date.now() / 1000) - run.started : null);

export const COLUMNS = [
  {name: "Run", class: "short", cell: (run) => h("span", {class: `mono ${run.parent ? "child" : ""}`}, run.parent && h("span", {class: "unseen"}, `for ${run.parent}: `), run.id)},
  {name: "State", class: "short", cell: runState},
  {name: "What", class: "cut", cell: (run) => foreign(run.title, 200)},
  {name: "Took", class: "number short", cell: (run) => span(took(run))},
  {name: "Cost", class: "number short", cell: (run) => money(usd(run))},
  {name: "Asked", class: "number short", cell: (run) => when(run.created)},
];

export async function view({query}, page) {
  const filters = Object.fromEntries(FILTERS.map((each) => [each, query.get(each) ?? ""]));
  let rows = [];
  let more = false;
  let asked = 0; // loads, of which the last one counts
  let isLoaded = false;
  let since = []; // events since it was asked for: its answer may not know them
  const options = {rowId: (run) => run.id, rowHref: (run) => runHref(run.id)};
  const list = h("div", null);
  const summary = h("span", {role: "status"});
  const pager = h("div", {class: "pager"}, summary, h("span", {class: "acts"}));
  const mads = [...new Set((page.status()?.mads ?? []).map((each) => each.name))].sort();

  async function load(before = "") {
    const mine = ++asked;
    [since, isLoaded] = [[], false];
    const {runs} = await get("/runs", {...filters, limit: PAGE, before}, {signal: page.signal});
    if (mine !== asked) return; // a later one may have been answered already
    more = runs.length === PAGE;
    rows = before ? [...rows, ...runs] : runs;
    draw();
    for (const each of since.splice(0)) show(each);
    isLoaded = true;
  }

  function draw() {
    const filtered = FILTERS.some((each) => filters[each]);
    const told = rows.length ? `${rows.length}${more ? " newest" : ""} ${filtered ? "match" : "shown"}` : "";
    if (summary.textContent !== told) summary.textContent = told;
    replace(pager.lastChild, more && rows.length < MOST && button("Older", () => load(rows.at(-1).id), {kind: "small"}));
    pager.hidden = !rows.length;
    if (!rows.length) {
      return replace(list, filtered
        ? empty("No run matches", "Take a filter away, or look for another word.", button("Clear filters", () => change(Object.fromEntries(FILTERS.map((each) => [each, ""])), true)))
        : h("div", null, empty("No runs yet", "A run is one worker in its own sandbox, for one task. Start with a scan of any folder:"), empty("", "", "madlab scan .")));
    }
    replace(list, table(COLUMNS, rows, {label: "Runs", ...options}));
  }

  async function change(values, redraw = false) {
    Object.assign(filters, values);
    page.setQuery(values);
    if (redraw) return page.reload();
    await load();
  }

  function matches(run) {
    return (!filters.mad || run.mad === filters.mad) && (!filters.state || run.state === filters.state || (filters.state === "live" && run.state !== "destroyed")) && (!filters.outcome || run.outcome === filters.outcome)
      && (!filters.q || run.title.toLowerCase().includes(filters.q.toLowerCase()));
  }

  function update(event) {
    if (event.name !== "run") return;
    if (!isLoaded) since.push(event.data);
    show(event.data);
  }

  function show(run) {
    const at = rows.findIndex((each) => each.id === run.id);
    if (at < 0 && !matches(run)) return;
    if (at < 0 && rows.length && run.created < rows.at(-1).created) return;
    if (at < 0) {
      rows.unshift(run);
      rows.sort((a, b) => b.created - a.created);
      if (rows.length > MOST) rows.length = MOST;
      return draw();
    }
    rows[at] = run;
    const row = [...list.querySelectorAll("tr[data-id]")].find((each) => each.dataset.id === run.id);
    const fresh = tableRow(COLUMNS, run, options);
    const held = row?.contains(document.activeElement);
    fresh.classList.add("fresh");
    row?.replaceWith(fresh);
    if (held) fresh.querySelector("a")?.focus({preventScroll: true});
  }

  const all = (word, values) => [["", word], ...values.map((each) => [each, each === "live" ? "not over" : each.replaceAll("_", " ")])];
  const bar = h("div", {class: "filters", role: "search", "aria-label": "Filter runs"},
    search("Task", filters.q, (q) => change({q})),
    choice("MAD", all("any", mads), filters.mad, (mad) => change({mad})),
    choice("State", all("any", STATES), filters.state, (state) => change({state})),
    choice("Outcome", all("any", OUTCOMES), filters.outcome, (outcome) => change({outcome})));
  await load();
  // how long those at work have been at it
  const tick = setInterval(() => {
    if (document.hidden) return;
    for (const run of rows.filter((each) => each.started && !each.ended)) {
      const row = [...list.querySelectorAll("tr[data-id]")].find((each) => each.dataset.id === run.id);
      row?.querySelector("[data-name=Took]").replaceChildren(span(took(run)));
    }
  }, 2000);
  const node = h("div", null, head("Runs", {note: "Each is one worker in its own sandbox, for one task."}), bar, h("div", {class: "card"}, list, pager));
  return {title: "Runs", node, topics: ["runs"], update, refresh: () => load(), leave: () => clearInterval(tick)};
}
