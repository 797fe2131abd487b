// The policy: its version, the rules in the order in which they are asked, and what each says.

import {get} from "./api.js";
import {h} from "./dom.js";
import {words} from "./format.js";
import {value} from "./message.js";
import {card, facts, foreign, state, when} from "./parts.js";

const TONES = {allow: "good", ask: "warn", deny: "bad"};
const APART = new Set(["name", "file", "verdict", "reason"]);

export async function part({query}, page) {
  const wanted = query.get("rule"); // which a link points to
  const policy = await get("/policy", {}, {signal: page.signal});
  const rules = policy.rules.map((rule) => h("li", {class: rule.name === wanted ? "finding meant" : "finding"}, h("div", {class: "finding-head"}, state(TONES[rule.verdict] ?? "quiet", rule.verdict ?? "allow"), h("h4", null, foreign(rule.name, 120)), h("span", {class: "sub"}, foreign(rule.file, 200))),
    rule.reason && h("p", null, foreign(rule.reason, 500)), h("dl", {class: "facts"}, Object.entries(rule).filter(([name]) => !APART.has(name)).map(([name, each]) => h("div", null, h("dt", null, name), h("dd", null, Array.isArray(each) ? foreign(each.join(", "), 1000) : typeof each === "object" && each !== null ? flat(each) : foreign(String(each), 300)))))));
  requestAnimationFrame(() => rules.find((each) => each.classList.contains("meant"))?.scrollIntoView({block: "center"}));
  return {topics: [], node: h("div", {class: "columns"}, card(["Rules", h("span", {class: "tag quiet"}, String(policy.rules.length))], {}, h("ol", null, rules)), h("div", {class: "stack"},
    card("Version", {}, h("div", {class: "card-body"}, facts([["Version", String(policy.version)], ["Since", when(policy.since, {as: "clock"})], ["Digest", h("code", null, foreign(policy.digest.slice(0, 23), 60))], ["Files", foreign(policy.files.map((each) => `${each.name} (${each.rules})`).join(", "), 600)]]))),
    Object.keys(policy.taint).length > 0 && card("Taint", {}, h("div", {class: "card-body stack"}, h("p", {class: "quiet-text"}, "What may leave the lab after a run has touched something of this kind."), flat(policy.taint))),
    card("Earlier", {}, h("ul", {class: "plain card-body"}, policy.versions.slice(0, 20).map((each) => h("li", null, `version ${each.version}, `, when(each.at)))))))};
}

/** A small object as names and values; one with more in it as JSON. */
function flat(each) {
  const pairs = Object.entries(each);
  if (pairs.some(([, one]) => typeof one === "object")) return value(each);
  return h("dl", {class: "facts"}, pairs.map(([name, one]) => h("div", null, h("dt", null, foreign(words(name), 60)), h("dd", null, TONES[one] ? state(TONES[one], one) : foreign(String(one), 200)))));
}
