// What runs changed and a person has to decide about: the patches, the newest first.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count} from "./format.js";
import {actButton, button, choice, empty, foreign, head, state, table, when} from "./parts.js";

const PAGE = 25;
const STATES = {waiting: ["requested", "waits for you"], applied: ["good", "applied"], sent_back: ["warn", "sent back"], dropped: ["off", "dropped"]};

export const patchHref = (id) => `/patches/${encodeURIComponent(id)}`;

/** Where a patch stands: by shape, word and colour. */
export const patchState = (name) => state(...(STATES[name] ?? ["quiet", name]));

/** Lines that come and go, as numbers. */
export const size = ({added, removed}) => h("span", {class: "diff-size"}, h("span", {class: "come"}, `+${added}`), " ", h("span", {class: "gone"}, `−${removed}`));

const COLUMNS = [
  {name: "Run", class: "short", cell: (each) => h("span", {class: "mono"}, each.run.id)},
  {name: "Decision", class: "short", cell: (each) => patchState(each.state)},
  {name: "Goal", class: "cut", cell: (each) => foreign(each.goal, 200)},
  {name: "Proof", class: "short", cell: (each) => each.proved ? state("good", "proved") : state(each.run.outcome === "partial" ? "warn" : "bad", each.run.outcome === "partial" ? "partly" : "not proved")},
  {name: "Files", class: "number short", cell: (each) => count(each.size.files, "file")},
  {name: "Lines", class: "number short", cell: (each) => size(each.size)},
  {name: "Ended", class: "number short", cell: (each) => when(each.run.ended)},
];

export async function view({query}, page) {
  await page.style("places.css");
  let wanted = query.get("state") ?? "";
  let rows = [];
  let more = false;
  const list = h("div", null);

  async function load(before = "") {
    const {patches} = await get("/patches", {state: wanted, limit: PAGE, before}, {signal: page.signal});
    more = patches.length === PAGE;
    rows = before ? [...rows, ...patches] : patches;
    draw();
  }

  function draw() {
    if (!rows.length) {
      return replace(list, wanted
        ? empty("No patch is like that", "Take the filter away.", button("All patches", () => change("")))
        : empty("No patches yet", "A patch is what a run changed in a copy of your repository, tested in a clean sandbox. Nothing of yours is touched until you approve it. Ask for one:", "madlab code \"make the tests pass\""));
    }
    const options = {label: "Patches", rowId: (each) => each.run.id, rowHref: (each) => patchHref(each.run.id)};
    replace(list, table(COLUMNS, rows, options), h("div", {class: "pager"}, h("span", null, `${rows.length} shown`), more && actButton("Older", () => load(rows.at(-1).sequence), {kind: "small"})));
  }

  function change(to) {
    wanted = to;
    page.setQuery({state: to});
    return load();
  }

  const states = [["", "all"], ...Object.entries(STATES).map(([name, [, word]]) => [name, word])];
  await load();
  const node = h("div", null, head("Patches", {note: "What runs changed, in copies. Each is yours to approve to a branch, to send back, or to drop."}),
    h("div", {class: "filters", role: "search", "aria-label": "Filter patches"}, choice("Decision", states, wanted, change)), h("div", {class: "card"}, list));
  const soon = () => load().catch((error) => page.signal.aborted || console.warn(error));
  return {title: "Patches", node, topics: ["runs"], refresh: soon,
    update: (event) => event.name === "run" && event.data.mad === "foreman" && event.data.state === "destroyed" && soon()};
}
