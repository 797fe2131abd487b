// Who works in the lab: residents and eMADs, how each fares, its tools, and what it cost in the last day.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, money, shown, tokens} from "./format.js";
import {card, foreign, link, state} from "./parts.js";

const SOUND = new Set(["running", "on demand"]);

export async function part({query}, page) {
  const wanted = query.get("mad"); // whom a link points to
  const list = h("div", {class: "grid"});

  async function look() {
    const [map, {tools}] = await Promise.all([get("/lab/map", {}, {signal: page.signal}), get("/tools", {}, {signal: page.signal})]);
    const mads = map.nodes.filter((each) => each.kind === "mad" && each.mad);
    mads.sort((a, b) => (b.name === wanted) - (a.name === wanted));
    replace(list, mads.map((each) => mad(each, tools.filter((one) => one.name.startsWith(`${each.name}.`)), each.name === wanted)));
  }

  await look();
  return {node: list, topics: [], refresh: look};
}

function mad(each, tools, meant) {
  const kinds = {resident: "resident", emad: "eMAD", core: "of the core"};
  return card([foreign(each.name, 60), h("span", {class: "tag quiet"}, kinds[each.mad] ?? each.mad)], {props: {class: meant ? "mad meant" : "mad"}}, h("div", {class: "card-body stack"},
    h("div", {class: "run-title"}, state(SOUND.has(each.state) ? "good" : each.state === "starting" ? "busy" : "bad", each.state), each.live > 0 && link(`/runs?mad=${encodeURIComponent(each.name)}&state=running`, count(each.live, "live run")), each.warm > 0 && h("span", {class: "quiet-text"}, `${each.warm} warm`), each.restarts > 0 && h("span", {class: "tag warn"}, count(each.restarts, "restart")), each.home && h("span", {class: "quiet-text"}, `in ${each.home === "core" ? "the core" : each.home}`)),
    each.error && h("p", {class: "text"}, foreign(each.error, 400)), h("p", null, foreign(each.summary, 400)),
    each.cost && h("p", {class: "quiet-text"}, `${count(each.cost.calls, "call")} of models in the last day, ${tokens(each.cost.tokens)} tokens, ${money(each.cost.usd)}${each.cost.failed ? `, ${each.cost.failed} failed` : ""}`),
    tools.length > 0 && h("details", null, h("summary", null, count(tools.length, "tool")), h("dl", {class: "facts"}, tools.map((one) => h("div", null, h("dt", null, h("code", null, shown(one.name.split(".").slice(1).join("."), 60))), h("dd", null, foreign(one.description.split("\n")[0], 300))))))));
}
