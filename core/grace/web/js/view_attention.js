// The start: what needs a person, best first, with what shows it and what can be done; beside it what goes on.

import {ask as request, get} from "./api.js";
import {setCount} from "./app.js";
import {h, replace} from "./dom.js";
import {count, money, span, tokens} from "./format.js";
import {icon} from "./icon.js";
import {actButton, announce, ask, card, empty, figure, foreign, formOf, head, runState, toast, when} from "./parts.js";
import {runHref, took} from "./view_runs.js";

const KINDS = {
  journal: ["The journal", "bad", "bad"],
  incident: ["Incidents", "bad", "warn"],
  machine: ["The machine", "warn", "warn"],
  approval: ["Waiting for your word", "busy", "conversations"],
  patch: ["Patches to look at", "busy", "patches"],
  vault: ["The vault", "warn", "warn"],
  budget: ["Budgets", "warn", "half"],
  run: ["Runs that went wrong", "bad", "bad"],
};
const LATELY = 8;
const SHOWN = 100; // of one kind
const OVER = new Set(["destroyed"]);

export async function view(_params, page) {
  const [{items}, {runs}, day0] = await Promise.all([
    get("/attention", {}, {signal: page.signal}),
    get("/runs", {limit: 100}, {signal: page.signal}),
    spent(page),
  ]);
  const known = new Map(runs.map((each) => [each.id, each]));
  const made = new Map(); // id → {json, node}: what has not changed keeps its node, and so the focus
  const queue = h("div", {class: "stack"});
  const now = h("div", null);
  const lately = h("div", null);
  const figures = h("dl", {class: "figures"});
  let latest = items;
  let account = day0;

  function drawQueue() {
    setCount(latest.length);
    const kinds = [...new Set(latest.map((each) => each.kind))];
    for (const id of made.keys()) if (!latest.some((each) => each.id === id)) made.delete(id);
    replace(queue, kinds.length ? kinds.map((kind) => {
      const own = latest.filter((each) => each.kind === kind);
      const [title] = KINDS[kind] ?? [kind];
      return card([title, own.length > 1 && h("span", {class: "tag quiet"}, String(own.length))], {},
        h("ol", {class: "queue"}, own.slice(0, SHOWN).map(item)),
        own.length > SHOWN && h("p", {class: "pager"}, `and ${count(own.length - SHOWN, "more")}`.replace(/s$/, "")));
    }) : nothing());
  }

  function nothing() {
    if (known.size) return h("section", {class: "card calm"}, icon("good"), h("div", null, h("h2", null, "Nothing needs you"), h("p", {class: "note"}, "Questions, failures and limits that come near appear here by themselves.")));
    return card("First steps", {}, h("div", {class: "card-body"}, h("ol", {class: "steps"},
      step("Scan a folder for flaws, secrets and known holes", "madlab scan ."),
      step("Let a model loose on a repository, and get back a tested patch", "madlab code \"make the tests pass\""),
      step("Ask a model something", "madlab ask \"what can you do?\""),
      step("See what this machine can isolate", "madlab doctor"))));
  }

  const step = (what, command) => h("li", null, h("p", null, what), h("pre", {class: "command", tabindex: "0", role: "region", "aria-label": "Command"}, h("code", null, command)));

  function item(each) {
    const json = JSON.stringify(each);
    const old = made.get(each.id);
    if (old?.json === json) return old.node;
    const node = itemNode(each);
    made.set(each.id, {json, node});
    return node;
  }

  function itemNode(each) {
    const [, tone, drawing] = KINDS[each.kind] ?? ["", "quiet", "warn"];
    const [first, ...rest] = each.evidence;
    const title = [foreign(each.title, 300), each.count > 1 && !each.title.includes(`(${each.count} times)`) && h("span", {class: "tag quiet times"}, `× ${each.count}`)];
    return h("li", {class: `item queue-item ${tone}`, data: {id: each.id}},
      h("span", {class: "queue-icon"}, icon(drawing)),
      h("div", {class: "queue-words"},
        h("h3", null, first ? h("a", {class: "item-link", href: first.path}, title) : title),
        each.detail && h("p", {class: "queue-detail"}, foreign(each.detail, 600)),
        each.form?.length > 0 && formOf(each.form),
        each.acts.some((act) => act.shows) && h("p", {class: "note"}, "This is its beginning. All of it is shown before it is approved."),
        h("p", {class: "queue-more"}, when(each.since), each.acts.length > 0 && first && h("a", {href: first.path}, foreign(first.label, 80)), rest.map((one) => h("a", {href: one.path}, foreign(one.label, 80))))),
      h("div", {class: "acts"}, !each.acts.length && first && h("a", {class: "button small", href: first.path}, foreign(first.label, 40)), each.acts.map((act, place) => actButton(act.label, () => perform(each, act),
        {kind: `small ${place === 0 && each.kind === "approval" ? "primary" : act.danger ? "danger" : ""}`, "aria-label": `${act.label}: ${each.title}`.slice(0, 200)}))));
  }

  async function perform(each, act) {
    const body = {...act.body};
    for (const field of act.asks ?? []) {
      const text = await ask({title: each.title, yes: act.label, field: field.replaceAll("_", " "), secret: /pass|secret/.test(field)});
      if (!text) return;
      body[field] = text;
    }
    if (act.danger || act.shows) {
      const form = act.shows ? await whole(each, act) : each.form;
      const text = `${each.title}${each.detail ? ` – ${each.detail}` : ""}`;
      if (!await ask({title: `${act.label}?`, text, body: form?.length > 0 && formOf(form), yes: act.label, kind: act.danger ? "danger" : "primary"})) return;
    }
    const answer = await (await request(act.path, {method: act.method, body})).json();
    toast(`Done: ${act.label}`);
    latest = answer?.items ?? (await get("/attention")).items;
    drawQueue();
    (queue.querySelector(".item-link") ?? document.querySelector("h1"))?.focus();
  }

  function drawRuns() {
    const all = [...known.values()].filter((each) => !each.parent).sort((a, b) => b.created - a.created);
    const live = all.filter((each) => !OVER.has(each.state));
    const ended = all.filter((each) => OVER.has(each.state)).sort((a, b) => b.ended - a.ended).slice(0, LATELY);
    const working = live.filter((each) => each.started);
    replace(now, live.length ? h("ul", {class: "mini"}, live.slice(0, 12).map((each) => mini(each, each.started ? span(took(each)) : null)),
      live.length > 12 && h("li", null, h("a", {href: "/runs"}, `All ${live.length}`))) : h("p", {class: "card-body quiet-text"}, "No run is at work."));
    replace(lately, ended.length ? h("ul", {class: "mini"}, ended.map((each) => mini(each, when(each.ended)))) : h("p", {class: "card-body quiet-text"}, "Nothing has ended yet."));
    const day = account;
    replace(figures, figure("Needs you", String(latest.length), {tone: latest.length ? "warn" : ""}),
      figure("At work", String(working.length), {note: live.length > working.length ? `${live.length - working.length} waiting` : null}),
      figure("Spent today", money(day?.spent_usd ?? 0), {note: day?.cap_usd ? `of ${money(day.cap_usd)}` : "no cap set"}),
      day?.spent_tokens ? figure("Tokens today", tokens(day.spent_tokens), {note: day.cap_tokens ? `of ${tokens(day.cap_tokens)}` : null}) : null);
  }

  const mini = (run, end) => h("li", {class: "item"}, h("a", {class: "item-link", href: runHref(run.id)}, runState(run), h("span", {class: "mini-title"}, foreign(run.title || run.id, 140))),
    h("span", {class: "mini-end"}, end));

  function update(event) {
    if (event.name === "attention") {
      const more = event.data.items.filter((each) => !latest.some((old) => old.id === each.id));
      latest = event.data.items;
      drawQueue();
      drawRuns();
      if (more.length) announce(more.length === 1 ? `Needs you: ${more[0].title}` : `${more.length} more need you`);
    } else if (event.name === "run") {
      known.set(event.data.id, event.data);
      if (known.size > 300) forget();
      soon();
    }
  }

  let timer = 0;
  const soon = () => (timer ||= setTimeout(() => {
    timer = 0;
    drawRuns();
  }, 250));

  function forget() {
    const old = [...known.values()].filter((each) => OVER.has(each.state)).sort((a, b) => a.ended - b.ended);
    for (const each of old.slice(0, 100)) known.delete(each.id);
  }

  async function refresh() {
    const [fresh, list, cost] = await Promise.all([get("/attention"), get("/runs", {limit: 100}), spent(page)]);
    latest = fresh.items;
    account = cost;
    known.clear();
    for (const each of list.runs) known.set(each.id, each);
    drawQueue();
    drawRuns();
  }

  drawQueue();
  drawRuns();
  const tick = setInterval(() => document.hidden || drawRuns(), 5000);
  const node = h("div", null, head("Attention", {note: "What needs you, what goes on, what it cost."}), figures,
    h("div", {class: "columns"}, queue, h("div", {class: "stack"}, card("At work", {acts: h("a", {href: "/runs"}, "All runs")}, now), card("Lately", {}, lately))));
  return {title: "Attention", node, topics: ["attention", "runs"], update, refresh, leave: () => clearInterval(tick)};
}

/** All of what would be approved: the item has who asks, and the beginning of the rest. */
async function whole(item, act) {
  const {form} = await get(act.shows);
  const parts = {target: form.target, ...form.details, taint: form.taint.join(", ")};
  return [...item.form.filter(({name}) => name === "act" || name === "who"), ...Object.entries(parts).map(([name, value]) => ({name, text: String(value)}))];
}

/** The account of today. */
async function spent(page) {
  return (await get("/costs", {by: "day", days: 1}, {signal: page.signal})).today;
}
