// Incidents: where a secret or a decoy was seen outside its place, and which run was ended for it, the newest first.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {button, empty, foreign, link, search, state, when} from "./parts.js";

const PAGE = 50;
const MOST = 1_000;
const PATH = 12; // steps that something took are shown

export async function part({query}, page) {
  let mad = query.get("mad") ?? "";
  let limit = mad ? MOST : PAGE;
  let all = [];
  let most = PAGE;
  const list = h("div", null);

  async function load() {
    all = (await get("/incidents", {limit}, {signal: page.signal})).incidents;
    draw();
  }

  function draw() {
    const some = mad ? all.filter((each) => each.mad === mad) : all;
    if (!some.length) return replace(list, all.length || mad ? empty("No incident is like that", `Of the newest ${all.length} that were looked through.`) : empty("No incidents", "Each run has decoys that look like keys. Whoever shows one, or a real secret, has gone where nobody sent it: its run is ended, and that is told of here."));
    const more = some.length > most || (all.length >= limit && limit < MOST);
    replace(list, h("ol", null, some.slice(0, most).map(incident)), h("div", {class: "pager"}, h("span", null, `${Math.min(most, some.length)} shown`), more && button("Earlier", () => {
      most += PAGE;
      limit = Math.min(MOST, Math.max(limit, most + 1));
      return load();
    }, {kind: "small"})));
  }

  await load();
  const bar = h("div", {class: "filters", role: "search", "aria-label": "Filter incidents"}, search("MAD", mad, (text) => {
    mad = text.trim();
    limit = mad ? MOST : PAGE;
    page.setQuery({mad});
    return load();
  }, {placeholder: "hopper"}));
  return {node: h("div", null, bar, h("section", {class: "card", "aria-label": "Incidents"}, list)), topics: ["attention"], update: (event) => event.name === "attention" && load(), refresh: load};
}

function incident(each) {
  const run = (id) => link(`/runs/${encodeURIComponent(id)}`, h("code", null, foreign(id, 80)));
  return h("li", {class: "finding"}, h("div", {class: "finding-head"}, each.ended?.length ? state("bad", "run ended") : state("warn", "taken out"), h("h4", null, foreign(`${each.mad || "Somebody"} showed ${each.what ?? "a secret"}`, 300))),
    h("p", null, "In ", foreign(each.place ?? "an unknown place", 300), each.encoding && [", ", foreign(each.encoding, 100)], ". ", each.ended?.length ? ["Ended: ", each.ended.map((one, place) => [place > 0 && ", ", run(one)]), "."] : "It was taken out; nobody was ended."),
    h("p", {class: "about"}, when(each.at, {as: "clock"}), each.run && [" · run ", run(each.run)], each.conversation && [" · ", link(`/conversations/${encodeURIComponent(each.conversation)}`, "its conversation")]),
    each.path?.length > 0 && h("details", null, h("summary", null, "The way it took"), h("ol", {class: "plain"}, each.path.slice(0, PATH).map((step) => h("li", null, foreign(step, 300))))));
}
