// The lab as it is: one page in parts, each a module of its own that is loaded when it is first looked at.

import {h} from "./dom.js";
import {head} from "./parts.js";

const PARTS = [["map", "Map"], ["mads", "MADs"], ["sandboxes", "Sandboxes"], ["costs", "Costs"], ["secrets", "Secrets"], ["policy", "Policy"], ["incidents", "Incidents"], ["audit", "Audit"], ["doctor", "Doctor"]];
const NOTES = {
  map: "Who talks to whom, how much and how fast, over the last minute.", mads: "Who works here, how each fares, and what it has cost today.",
  sandboxes: "Every sandbox there is now, and what is kept warm.", costs: "What calls of models have cost, and what may still be spent today.",
  secrets: "By name, with who may use each where. A value is never shown, here or anywhere.",
  policy: "The rules that hold, in their order. Plain code decides by them; the default is no.",
  incidents: "Where a secret or a decoy was seen outside its place, and who was ended for it.", audit: "Every privileged act, with what was decided and what came of it.",
  doctor: "What this machine can do for the lab, tried and not concluded.",
};

export async function view(params, page) {
  await page.style("places.css");
  const name = params.name ?? "map";
  if (!PARTS.some(([each]) => each === name)) throw Object.assign(new Error("The lab has no such part."), {status: 404, next: `Choose one of: ${PARTS.map(([, word]) => word).join(", ")}.`});
  const {part} = await import(`./lab_${name}.js`);
  const made = await part(params, page);
  const tabs = h("nav", {class: "tabs", "aria-label": "Parts of the lab"}, PARTS.map(([each, word]) => h("a", {href: each === "map" ? "/lab" : `/lab/${each}`, "aria-current": each === name ? "page" : null}, word)));
  return {...made, title: `Lab: ${PARTS.find(([each]) => each === name)[1]}`, node: h("div", null, head("The lab", {note: NOTES[name], acts: made.acts}), tabs, made.node)};
}
