// One run, as it goes: where it stands, what it says, what it does, what it costs, and what came of it.

import {get, post} from "./api.js";
import {h, replace, replaceFor} from "./dom.js";
import {bytes, clock, count, full, money, shown, span, tokens, words} from "./format.js";
import {icon} from "./icon.js";
import {lines} from "./lines.js";
import {blobs, messageItem, value} from "./message.js";
import {actButton, ask, card, empty, facts, figure, foreign, head, link, runState, state, toast, when} from "./parts.js";
import {plot} from "./plot.js";
import {activityOf, joined, LISTS} from "./activity.js";
import {runHref, took} from "./view_runs.js";

const STEPS = ["requested", "admitted", "starting", "ready", "running", "collecting", "destroyed"];
const MESSAGES = 200; // in the page at once
const LINES_PAGE = 1000;
const LINES_MOST = 20; // pages that are fetched without being asked for
const ACTIVITY_MS = 2_000; // the least between two looks at what a working run does

export async function view({id}, page) {
  const path = `/runs/${encodeURIComponent(id)}`;
  let run = await get(path, {}, {signal: page.signal});
  const said = new Map(run.messages.map((each) => [each.id, each]));
  const children = new Map();
  let doing = null;
  let reached = 0; // the last line's sequence
  const seen = new Set(); // ids of lines

  const acts = h("div", {class: "acts"});
  const note = h("div", {class: "run-title"});
  const steps = h("div", null);
  const figures = h("dl", {class: "figures"});
  const result = h("div", {class: "stack"});
  const thread = h("ol", {class: "thread"});
  const earlier = h("div", null);
  const side = h("div", {class: "stack"});
  const activity = activityOf(id, older);
  const cpu = plot({title: "CPU", values: [], step: 1, format: (share) => `${Math.round(share * 100)} %`, least: 0.1});
  const memory = plot({title: "Memory", values: [], step: 1, format: bytes, unit: 1 << 20});
  const plots = card("What it uses", {props: {hidden: true}}, h("div", {class: "plots card-body"}, cpu.node, memory.node));
  const log = lines({label: "Log of the run", hint: run.state === "destroyed" ? "It wrote no lines." : "It has written nothing yet."});
  let all = false;

  function drawHead() {
    const live = run.state !== "destroyed";
    const product = productOf(run);
    const stands = [run.state, run.outcome, run.place, run.moves, run.started, product];
    replaceFor(stands, acts, () => [
      product && h("a", {class: "button primary", href: product.href}, product.name),
      live && run.state !== "collecting" && [
        run.started && actButton("Say something", remark),
        actButton("Cancel", cancel, {kind: "danger"})],
      !live && !run.parent && actButton(theirs(run) ? "Run their words again" : "Run again", retry, {kind: theirs(run) ? "danger" : ""})]);
    replaceFor(stands, note, () => [runState(run), run.title && h("span", null, foreign(run.title, 300))]);
    replaceFor(stands, steps, () => stateLine(run));
    const cost = run.cost ?? {};
    const usage = doing?.usage;
    replace(figures,
      figure("Took", span(took(run)), {note: run.place ? `place ${run.place} in the queue` : run.started ? null : "has not begun"}),
      figure("CPU", span(cost.cpu_s), {note: cost.cpu_s && took(run) ? `${Math.round((100 * cost.cpu_s) / took(run))} % of a core` : usage?.cpu?.length ? `${Math.round(100 * usage.cpu.at(-1))} % now` : null}),
      figure("Memory", bytes(memoryOf(cost, usage)), {note: memoryOf(cost, usage) ? "at most" : usage?.why && run.started ? "not told apart" : null}),
      figure("Tokens", tokens(cost.tokens ?? sum(doing?.llm, (each) => each.input + each.output)), {note: doing?.llm?.length ? count(doing.llm.length, "call") : null}),
      figure("Cost", money(cost.usd ?? sum(doing?.llm, (each) => each.usd)), {note: run.terms?.usd ? `of ${money(run.terms.usd)}` : null}),
      figure("Sent and kept", bytes(cost.bytes_out ?? null), {note: cost.bytes_in ? `${bytes(cost.bytes_in)} came in` : null}));
    replaceFor([run.outcome, run.reason, run.evidence, run.forgotten], result, () => (run.outcome || run.reason ? outcome() : null));
  }

  function outcome() {
    const evidence = Object.entries(run.evidence ?? {});
    return card(["What came of it", run.outcome && state(run.outcome)], {}, h("div", {class: "card-body stack"},
      run.reason && h("p", {class: "text reason"}, foreign(run.reason, 4000)),
      evidence.length > 0 && h("dl", {class: "facts"}, evidence.map(([name, each]) => h("div", null, h("dt", null, shown(words(name), 60)), h("dd", null, shownValue(each))))),
      run.forgotten && h("p", {class: "quiet-text"}, "Its conversation was forgotten ", when(run.forgotten), ". What was said, the words of the evidence and its files are gone; figures stay."),
      !run.forgotten && !run.reason && !evidence.length && h("p", {class: "quiet-text"}, "It ended as it should, and brought no evidence: its manifest asks for none.")));
  }

  function drawSide() {
    const blobCard = run.artifacts?.length > 0 && card("Files it left", {}, h("div", {class: "card-body"}, blobs(run.artifacts)));
    const own = [...children.values()];
    replaceFor([run.started, run.ended, run.artifacts, run.packages, own], side, () => [
      card("About", {}, h("div", {class: "card-body"}, facts([
        ["MAD", link(`/runs?mad=${encodeURIComponent(run.mad)}`, run.mad)],
        ["Conversation", link(`/conversations/${encodeURIComponent(run.conversation)}`, h("span", {class: "mono"}, shown(run.conversation.slice(0, 18)), run.conversation.length > 18 && "…"))],
        ["Asked for by", run.parent ? link(runHref(run.parent), h("span", {class: "mono"}, run.parent)) : null],
        ["Asked", when(run.created, {as: "clock"})], ["Begun", run.started ? when(run.started, {as: "clock"}) : null], ["Ended", run.ended ? when(run.ended, {as: "clock"}) : null],
        ["Limits", limits(run.terms)],
      ]))),
      blobCard,
      own.length > 0 && card(`Runs that work for it`, {}, h("ul", {class: "mini"}, own.map((each) => h("li", {class: "item"}, h("a", {class: "item-link", href: runHref(each.id)}, each.state && runState(each), h("span", {class: "mini-title"}, foreign(each.title || each.id, 120))), h("span", {class: "mini-end"}, each.state ? span(took(each)) : each.mad))))),
      run.packages?.length > 0 && card("Packages it fetched", {}, h("div", {class: "card-body"}, h("ul", {class: "plain"}, run.packages.slice(0, 60).map((each) => h("li", null, h("span", {class: "mono"}, foreign(`${each.name ?? ""} ${each.version ?? ""}`, 120)))))))]);
  }

  function drawThread() {
    const list = [...said.values()].sort((a, b) => a.sequence - b.sequence);
    const shownNow = all ? list.slice(-1000) : list.slice(-MESSAGES);
    const have = new Map([...thread.children].map((each) => [each.dataset.id, each]));
    replace(thread, shownNow.map((each) => have.get(each.id) ?? messageItem(each)));
    replace(earlier, shownNow.length < list.length && h("p", {class: "pager"}, h("span", null, `${count(list.length - shownNow.length, "earlier message")} in `, link(`/conversations/${encodeURIComponent(run.conversation)}`, "the conversation")),
      !all && h("button", {type: "button", class: "button small", onclick: () => {
        all = true;
        drawThread();
      }}, "Show more")));
    if (!list.length) replace(thread, h("li", {class: "quiet-text message"}, "Nothing has been said yet."));
  }

  function drawActivity() {
    if (!doing) return;
    const {usage} = doing;
    plots.hidden = !usage.memory?.length && !usage.cpu?.length;
    if (!plots.hidden) {
      cpu.set(usage.cpu, usage.step_s);
      memory.set(usage.memory, usage.step_s);
    }
    for (const each of doing.children) if (!children.has(each.run)) children.set(each.run, {...each, id: each.run});
    drawSide();
    activity.draw(doing);
  }

  // --- what is asked for

  async function remark() {
    const text = await ask({title: `Say something to ${id}`, text: "It reads this at its next step.", yes: "Say it", field: "What to say"});
    if (text) await post(`${path}/remarks`, {text});
    if (text) toast("Said. It reads this at its next step.");
  }

  async function cancel() {
    if (!await ask({title: "Cancel this run?", text: `${id} ends, its sandbox is destroyed, and what it has not handed in is gone.`, yes: "Cancel the run", kind: "danger"})) return;
    run = {...run, ...await post(`${path}/cancel`)};
    drawHead();
    toast("It is being cancelled.");
  }

  async function retry() {
    if (theirs(run) && !await ask({title: `Say the words of ${shown(run.asker, 80)} again?`, text: `“${shown(run.title || id, 300)}” was asked for by ${shown(run.asker, 80)}. Said again it is you who asks, with what you may and at your cost, in a new conversation.`, yes: "Run their words again", kind: "danger"})) return;
    const again = await post(`${path}/retry`);
    toast(`Asked again: ${again.run ?? "see Runs"}`);
    if (again.run) page.go(runHref(again.run));
  }

  // --- what comes

  async function loadLines() {
    for (let pages = 0; pages < LINES_MOST; pages += 1) {
      const {logs} = await get(`${path}/logs`, {after: reached, limit: LINES_PAGE}, {signal: page.signal});
      addLines(logs);
      if (logs.length < LINES_PAGE) return;
    }
  }

  function addLines(messages) {
    const fresh = messages.filter((each) => !seen.has(each.id));
    for (const each of fresh) {
      seen.add(each.id);
      reached = Math.max(reached, each.sequence);
    }
    log.add(fresh.map((each) => ({id: each.id, at: each.at, text: lineText(each), level: levelOf(each)})));
  }

  /** What it did before what is shown, put ahead of it. */
  async function older() {
    const page_ = await get(`${path}/activity`, {before: doing.before}, {signal: page.signal});
    past = {...past, before: page_.before, ...Object.fromEntries(LISTS.map((each) => [each, [...page_[each], ...(past?.[each] ?? [])]]))};
    doing = joined(past, doing);
    drawActivity();
  }

  let past = null; // what was asked for beyond the newest
  let looking = false;
  let again = false;
  let lookAt = -Infinity;
  async function look() {
    if (looking) return void (again = true);
    looking = true;
    const pause = lookAt + ACTIVITY_MS - performance.now();
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
    try {
      doing = joined(past, await get(`${path}/activity`, {}, {signal: page.signal}));
      lookAt = performance.now();
      drawActivity();
      drawHead();
    } catch (error) {
      if (!page.signal.aborted && error.status !== 0) console.warn(error);
    } finally {
      looking = false;
    }
    if (again && !page.signal.aborted) {
      again = false;
      look();
    }
  }

  function update(event) {
    if (event.name === "run") {
      const each = event.data;
      if (each.id === id) {
        const ended = run.state !== "destroyed" && each.state === "destroyed";
        run = {...run, ...each, moves: run.moves.some((move) => move.state === each.state) ? run.moves : [...run.moves, {state: each.state, at: Date.now() / 1000}]};
        drawHead();
        drawSide();
        if (ended) refresh();
        else look();
      } else if (each.parent === id) {
        children.set(each.id, each);
        drawSide();
      }
    } else if (event.name === "message") {
      const each = event.data;
      if (each.conversation !== run.conversation && !each.conversation.startsWith(`${run.conversation}/`)) return;
      if (each.kind === "event") {
        if (each.tool === "log" || each.tool === "progress") addLines([each]);
      } else if (each.conversation === run.conversation && !said.has(each.id)) {
        said.set(each.id, each);
        drawThread();
      }
      look();
    }
  }

  async function refresh() {
    const fresh = await get(path, {}, {signal: page.signal});
    run = fresh;
    for (const each of fresh.messages) said.set(each.id, each);
    drawHead();
    drawSide();
    drawThread();
    await loadLines();
    look();
  }

  drawHead();
  drawSide();
  drawThread();
  loadLines().catch((error) => page.signal.aborted || console.warn(error));
  look();

  const tick = setInterval(() => run.started && !run.ended && !document.hidden && drawHead(), 1000);
  const node = h("div", null, head(h("span", {class: "mono"}, id), {crumbs: link("/runs", "Runs"), acts, note}), h("div", {class: "stack"}, steps, figures, plots,
    h("div", {class: "columns"}, h("div", {class: "stack"}, result, card("Messages", {}, earlier, thread), card("Log", {}, h("div", {class: "card-body"}, log.node)), activity.node), side)));
  return {title: id, node, topics: [`run:${id}`], update, refresh, leave: () => clearInterval(tick)};
}

/** Where it stands: all steps in their order, with how long it was in each; the exact times on hover. */
function stateLine(run) {
  const times = {requested: run.created, running: run.started || null, destroyed: run.ended, ...Object.fromEntries(run.moves.map((each) => [each.state, each.at]))};
  const at = STEPS.indexOf(run.state);
  const after = (place) => STEPS.slice(place + 1).map((each) => times[each]).find(Boolean);
  return h("ol", {class: "steps-line", "aria-label": "Where the run stands"}, STEPS.map((name, place) => {
    const time = times[name];
    const is = place > at ? "ahead" : place < at && !time ? "skipped" : place === at && run.state !== "destroyed" ? "now" : "past";
    const next = after(place);
    const word = !time ? " " : name === "destroyed" ? clock(time) : next ? span(Math.max(0, next - time)) : `since ${clock(time)}`;
    return h("li", {class: is, "aria-current": place === at ? "step" : null}, h("span", {class: "step-mark"}, icon({past: "good", now: "working", ahead: "waiting", skipped: "off"}[is])),
      h("span", {class: "step-name"}, name), h("span", {class: "step-at", title: time ? full(time) : null}, word),
      h("span", {class: "unseen"}, {past: "done", now: "now", ahead: "to come", skipped: "passed over"}[is]));
  }));
}

/** What the run left for a person to judge, and where. */
function productOf(run) {
  const left = (name) => run.artifacts?.some((each) => each.name === name);
  if (run.mad === "foreman" && left("patch.diff")) return {name: "See the patch", href: `/patches/${encodeURIComponent(run.id)}`};
  if (run.mad === "mcnamara" && left("report.json")) return {name: "See the report", href: `/reports/${encodeURIComponent(run.id)}`};
  return null;
}

function shownValue(each) {
  if (typeof each === "boolean") return state(each ? "good" : "quiet", each ? "yes" : "no");
  return typeof each === "object" && each !== null ? value(each, 5) ?? h("span", {class: "quiet-text"}, "none") : foreign(String(each), 2000);
}

function limits(terms) {
  const set = Object.entries(terms ?? {}).filter(([, each]) => each !== null && each !== "" && !(Array.isArray(each) && !each.length));
  if (!set.length) return null;
  const say = {usd: money, tokens, seconds: span};
  return set.map(([name, each]) => `${say[name] ? say[name](each) : shown(Array.isArray(each) ? each.join(", ") : each, 200)}${name === "tokens" ? " tokens" : ""}`).join(", ");
}

const memoryOf = (cost, usage) => cost.memory_bytes ?? (usage?.memory?.length ? Math.max(...usage.memory) : null);
const sum = (list, of) => (list?.length ? list.reduce((total, each) => total + (of(each) || 0), 0) : null);
const levelOf = (message) => (/^(error|warning|fatal|critical)$/.test(message.data?.level ?? "") ? message.data.level : message.tool);
const lineText = (message) => message.text || (message.data === null ? "" : JSON.stringify(message.data));

/** Whether somebody else asked for it: a client, a resident. */
function theirs(run) {
  return Boolean(run.asker) && run.asker !== "operator";
}
