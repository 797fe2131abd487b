// The doctor's card: what was tried on this machine, what is weak or bad, and how to mend it.

import {get, post} from "./api.js";
import {h, replace} from "./dom.js";
import {span} from "./format.js";
import {actButton, card, empty, foreign, state, when} from "./parts.js";

const TONES = {ok: "good", weak: "warn", bad: "bad"};
const LOOK_MS = 1_000;

export async function part(_params, page) {
  const node = h("div", null);
  let timer = 0;

  async function look() {
    draw(await get("/lab/doctor", {}, {signal: page.signal}));
  }

  function draw(found) {
    clearTimeout(timer);
    if (found.running) timer = setTimeout(() => look().catch((error) => page.signal.aborted || console.warn(error)), LOOK_MS);
    const rank = {bad: 0, weak: 1, unseen: 2, ok: 3};
    const checks = [...found.checks].sort((a, b) => rank[a.state] - rank[b.state]);
    replace(node, card([found.running ? "Looking…" : "What it found", found.at && !found.running ? state(found.ok ? "good" : "bad", found.ok ? "the lab can run here" : "the lab cannot run here") : null],
      {acts: found.running ? state("busy", "trying things out") : actButton("Look now", async () => draw(await post("/lab/doctor")), {kind: "primary"})},
      found.at && h("p", {class: "card-body quiet-text"}, "Looked ", when(found.at), `, which took ${span(found.took_s)}`),
      checks.length ? h("ul", {class: "check-list"}, checks.map((each) => h("li", null, state(TONES[each.state] ?? "quiet", each.state), h("div", null, h("b", null, foreign(each.name, 80)), " ", foreign(each.detail, 600)), each.mend && h("div", {class: "mend"}, foreign(each.mend, 600)))))
        : found.running ? h("p", {class: "card-body quiet-text"}, "It opens sandboxes and times the disk. This takes some seconds.") : empty("The doctor has not looked yet", "It opens sandboxes and times the disk, so it waits to be asked. It takes some seconds.", "madlab doctor")));
  }

  await look();
  return {node, topics: [], refresh: look, leave: () => clearTimeout(timer)};
}
