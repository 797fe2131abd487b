// The audit: privileged acts with intent, decision and outcome, the newest first; by who, what, how it ended, and words.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {shown, undigested, words} from "./format.js";
import {value} from "./message.js";
import {button, choice, empty, foreign, search, state, when} from "./parts.js";

const PAGE = 200; // acts that are asked for first
const ROWS = matchMedia("(max-width: 620px)").matches ? 10 : 25; // that are shown first
const MOST = 5_000;
const ENDS = [["", "any"], ["done", "done"], ["denied", "denied"], ["failed", "failed"]];

export async function part({query}, page) {
  const wanted = {q: query.get("q") ?? "", principal: query.get("principal") ?? "", act: query.get("act") ?? "", end: query.get("end") ?? ""};
  let acts = [];
  let rows = ROWS;
  let limit = wanted.q ? 5 * PAGE : PAGE;
  const list = h("div", null);
  const bar = h("div", {class: "filters", role: "search", "aria-label": "Filter the audit"});

  async function load() {
    const found = await get("/audit", {principal: wanted.principal, limit}, {signal: page.signal});
    acts = found.acts.reverse();
    draw();
  }

  const endOf = (each) => each.outcome.startsWith("failed") ? "failed" : each.outcome;

  function draw() {
    const text = wanted.q.toLowerCase();
    const some = acts.filter((each) => (!wanted.act || each.act === wanted.act) && (!wanted.end || endOf(each) === wanted.end) && (!text || `${each.id} ${each.act} ${each.target} ${each.principal} ${each.reason} ${each.rule} ${JSON.stringify(each.details)}`.toLowerCase().includes(text)));
    const more = acts.length >= limit && limit < MOST;
    replace(list, some.length ? h("ol", null, some.slice(0, rows).map(line)) : empty("No act matches", acts.length ? `Of the newest ${acts.length} that were looked through.` : "Nothing privileged has been done yet."),
      h("div", {class: "pager"}, h("span", null, some.length > rows ? `${rows} of ${some.length}` : `${some.length} of the newest ${acts.length}`), some.length > rows ? button("More", () => {
        rows *= 4;
        draw();
      }, {kind: "small"}) : more && button("Look further back", () => {
        rows *= 4;
        limit = Math.min(MOST, limit * 5);
        return load();
      }, {kind: "small"})));
  }

  function line(each) {
    const tone = {done: "good", denied: "bad", failed: "bad"}[endOf(each)] ?? "quiet";
    const details = Object.keys(each.details ?? {}).length > 0;
    return h("li", {class: "finding"}, h("div", {class: "finding-head"}, state(tone, words(each.outcome || each.verdict || "begun")), h("h4", {title: shown(each.target, 300)}, foreign(undigested(`${each.act} ${each.target}`), 300)), each.taint?.map((label) => h("span", {class: "tag warn"}, shown(label, 40)))),
      h("p", {class: "about"}, when(each.at, {as: "clock"}), " · ", foreign(each.principal, 120), each.rule && [" · rule ", foreign(each.rule, 120)], each.ended && each.ended > each.at ? ` · ${((each.ended - each.at) * 1000).toFixed(0)} ms` : "", " · ", h("code", null, foreign(each.id, 120))),
      each.reason && h("p", null, foreign(each.reason, 600)), details && h("details", null, h("summary", null, "Details"), value(each.details)));
  }

  function change(values) {
    Object.assign(wanted, values);
    rows = ROWS;
    page.setQuery(values);
    return "principal" in values ? load() : draw();
  }

  await load();
  const kinds = [...new Set(acts.map((each) => each.act))].sort();
  replace(bar, search("Words", wanted.q, (q) => change({q})), search("Principal", wanted.principal, (principal) => change({principal}), {placeholder: "mad:marco, operator"}), choice("Act", [["", "any"], ...kinds.map((each) => [each, shown(each, 40)])], wanted.act, (act) => change({act})), choice("Ended", ENDS, wanted.end, (end) => change({end})));
  return {node: h("div", null, bar, h("section", {class: "card", "aria-label": "Acts"}, list)), topics: [], refresh: load};
}
