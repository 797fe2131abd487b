// Secrets by name: their versions, who may use each where, who did. There is no place here for a value, in or out.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, words} from "./format.js";
import {actButton, card, empty, facts, foreign, state, table, when} from "./parts.js";

const VAULT = {open: "good", none: "quiet", damaged: "bad"};

export async function part(_params, page) {
  const node = h("div", {class: "stack"});

  async function look() {
    const {vault, secrets} = await get("/secrets", {}, {signal: page.signal});
    replace(node, card("Vault", {}, h("div", {class: "card-body"}, facts(Object.entries(vault).filter(([, value]) => value !== "" && value !== null).map(([name, value]) => [words(name[0].toUpperCase() + name.slice(1)), name === "state" ? state(VAULT[value] ?? "warn", words(value)) : typeof value === "boolean" ? (value ? "yes" : "no") : foreign(["way", "wanted"].includes(name) ? words(value) : String(value), 200)])))),
      secrets.length ? secrets.map(secret) : h("div", {class: "card"}, empty("No secrets yet", "A worker uses a secret by its name and never sees it. Its value goes in at a terminal:", "madlab secret set NAME")));
  }

  function secret(each) {
    const place = h("div", {class: "card-body stack"});
    const open = actButton("Grants and uses", async () => {
      const path = `/secrets/${encodeURIComponent(each.name)}`;
      const [grants, uses] = await Promise.all([get(`${path}/grants`, {}, {signal: page.signal}), get(`${path}/uses`, {limit: 50}, {signal: page.signal})]);
      replace(place, grantsTable(grants), usesTable(uses));
    }, {kind: "small"});
    return card(h("span", {class: "mono"}, foreign(each.name, 100)), {acts: open}, h("p", {class: "card-body quiet-text"}, `version ${each.version}, `, count(each.grants, "grant"), `, used ${count(each.uses, "time")}`, each.last ? [", last ", when(each.last)] : ""), place);
  }

  await look();
  return {node, topics: [], refresh: look};
}

function grantsTable({grants, ended, providers}) {
  const rows = [...grants, ...ended];
  return h("div", null, h("h3", null, "Who could"), rows.length ? table([{name: "Principal", class: "short", cell: (each) => foreign(each.principal, 120)}, {name: "State", class: "short", cell: (each) => state(each.state === "held" ? "good" : "off", each.state)}, {name: "Where", class: "cut", cell: (each) => foreign(`${each.methods.join(" ") || "any method"} ${each.place}`, 300)},
    {name: "Uses left", class: "number short named", cell: (each) => each.uses_left === null ? "any" : String(each.uses_left)}, {name: "Used", class: "number short named", cell: (each) => String(each.used)}, {name: "Until", class: "number short", cell: (each) => each.expires ? when(each.expires, {as: "clock"}) : "for good"}], rows, {label: "Grants"}) : h("p", {class: "quiet-text"}, "Nobody, by a grant."),
    providers.map((each) => h("p", null, `The key of the provider ${each.provider}, at `, foreign(each.address, 200))));
}

function usesTable({uses}) {
  return h("div", null, h("h3", null, "Who did"), uses.length ? table([{name: "When", class: "short", cell: (each) => when(each.at, {as: "clock"})}, {name: "Principal", class: "short", cell: (each) => foreign(each.principal, 120)}, {name: "Where", class: "cut", cell: (each) => foreign(`${each.method ?? ""} ${each.place ?? each.target ?? ""}`.trim(), 300)}], uses, {label: "Uses"}) : h("p", {class: "quiet-text"}, "Nobody yet."));
}
