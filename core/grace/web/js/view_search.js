// Search over all that was said and done: words and filters, what was found with the words marked, and counts by which
// to narrow it. What is marked is told by the door in pieces; here each becomes a text node.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, shown} from "./format.js";
import {taint} from "./message.js";
import {actButton, button, card, choice, empty, failure, foreign, head, when} from "./parts.js";
import {talkHref} from "./view_conversations.js";
import {runHref} from "./view_runs.js";
import {reportHref} from "./view_reports.js";

const PAGE = 20;
const FIELDS = ["q", "kind", "sender", "tag", "since"];
const KINDS = [["", "everything"], ["message", "messages"], ["run", "runs"], ["finding", "findings"], ["act", "acts"]];
const SINCE = [["", "any time"], ["1h", "the last hour"], ["1d", "the last day"], ["7d", "the last week"], ["4w", "the last four weeks"]];

export async function view({query}, page) {
  await page.style("places.css");
  const wanted = Object.fromEntries(FIELDS.map((each) => [each, query.get(each) ?? ""]));
  let hits = [];
  let found = null;
  let step = 0;
  const list = h("ol", {class: "hits", "aria-label": "Found"});
  const told = h("p", {class: "note", role: "status"});
  const facets = h("div", {class: "facets"});
  const pager = h("div", {class: "pager"});
  const input = h("input", {type: "search", value: wanted.q, autocomplete: "off", spellcheck: "false", maxlength: "500", "aria-label": "Search for", placeholder: "words, \"a phrase\", begin*, -not, from:hopper, #tag", oninput: later});
  let timer = 0;

  function later() {
    clearTimeout(timer);
    if (input.value.split('"').length % 2) timer = setTimeout(() => change({q: input.value}), 200); // a phrase is typed to its end first
  }

  async function load(more = "") {
    const mine = (step += 1);
    if (!FIELDS.some((each) => wanted[each])) {
      hits = [];
      found = null;
      return draw();
    }
    try {
      const answer = await get("/search", {...wanted, limit: PAGE, more}, {signal: page.signal});
      if (mine !== step) return;
      found = answer;
      hits = more ? [...hits, ...answer.hits] : answer.hits;
      draw();
    } catch (error) {
      if (mine !== step || page.signal.aborted) return;
      told.textContent = "";
      replace(list, h("li", null, failure(error, () => load())));
      replace(pager);
    }
  }

  function draw() {
    told.textContent = found ? `${found.exact ? "" : "about "}${count(found.total, "hit")} in ${Math.max(1, Math.round(found.took_ms))} ms` : "";
    if (!found) replace(list, h("li", null, empty("Search the lab", "Everything said and done is here: messages, runs, findings, acts. Words are ANDed; put a phrase in quotation marks; narrow it with from:, to:, kind:, tag:, after: and before:.")));
    else if (!hits.length) replace(list, h("li", null, empty("Nothing was found", "Take a word or a filter away. What was said a moment ago is here a moment later.")));
    else replace(list, hits.map(hitItem));
    replace(pager, found && hits.length > 0 && h("span", null, `${hits.length} shown`), found?.more && actButton("More", () => load(found.more), {kind: "small"}));
    replace(facets, found && hits.length > 0 && [facet("By kind", "kind", found.counts?.kind ?? found.counts?.kinds), facet("By sender", "sender", found.counts?.sender ?? found.counts?.from ?? found.counts?.senders)]);
  }

  function facet(title, name, counts) {
    const some = Object.entries(counts ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 12);
    if (!some.length) return null;
    return card(title, {}, h("ul", {class: "card-body"}, some.map(([value, number]) => h("li", null, button([foreign(value || "(nobody)", 80), h("span", {class: "quiet-text"}, String(number))],
      () => change({[name]: wanted[name] === value ? "" : value}), {kind: "small bare", "aria-pressed": String(wanted[name] === value)})))));
  }

  function hitItem(hit) {
    return h("li", {class: "hit item"}, h("h3", null, h("a", {class: "item-link", href: hrefOf(hit)}, foreign(hit.title || hit.id, 200))),
      h("p", null, h("bdi", {dir: "auto"}, hit.snippet.map(([text, marked]) => marked ? h("mark", null, shown(text, 500)) : shown(text, 2000)))),
      h("div", {class: "hit-about"}, h("span", {class: "tag quiet"}, hit.kind), hit.sender && foreign(hit.sender, 80), when(hit.at), (hit.taint ?? []).map(taint)));
  }

  function change(values) {
    Object.assign(wanted, values);
    page.setQuery(values);
    drawFilters();
    return load();
  }

  const filters = h("div", {class: "filters"});
  function drawFilters() {
    const held = document.activeElement?.closest?.(".filters") === filters ? [...filters.querySelectorAll("select")].indexOf(document.activeElement) : -1;
    replace(filters, choice("Kind", KINDS, wanted.kind, (kind) => change({kind})), choice("When", SINCE, wanted.since, (since) => change({since})),
      wanted.sender && button(["from ", foreign(wanted.sender, 60), " ×"], () => change({sender: ""}), {kind: "small", "aria-label": `Take away: from ${wanted.sender}`}),
      wanted.tag && button([`#${shown(wanted.tag, 60)} ×`], () => change({tag: ""}), {kind: "small", "aria-label": `Take away: tag ${wanted.tag}`}));
    if (held >= 0) filters.querySelectorAll("select")[held]?.focus();
  }

  drawFilters();
  await load();
  const node = h("div", null, head("Search", {note: told}), h("form", {class: "search-form", role: "search", onsubmit: (event) => {
    event.preventDefault();
    clearTimeout(timer);
    change({q: input.value});
  }}, input, filters), h("div", {class: "columns"}, h("section", {class: "card", "aria-label": "Hits"}, list, pager), facets));
  queueMicrotask(() => requestAnimationFrame(() => !wanted.q && input.focus({preventScroll: true})));
  return {title: "Search", node, topics: [], leave: () => clearTimeout(timer)};
}

/** Where a hit leads. */
function hrefOf(hit) {
  if (hit.kind === "run") return runHref(hit.run || hit.id);
  if (hit.kind === "finding" && hit.run) return reportHref(hit.run);
  if (hit.kind === "act") return `/lab/audit?q=${encodeURIComponent(hit.id.replace(/:(started|outcome)$/, ""))}`;
  return talkHref(hit.conversation, hit.sequence || "");
}
