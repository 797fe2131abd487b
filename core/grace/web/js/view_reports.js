// What scans found: the reports, the newest first.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count} from "./format.js";
import {actButton, empty, foreign, head, runState, table, when} from "./parts.js";
import {severity, SEVERITIES} from "./severity.js";

const PAGE = 25;

export const reportHref = (id) => `/reports/${encodeURIComponent(id)}`;

const COLUMNS = [
  {name: "Run", class: "short", cell: (each) => h("span", {class: "mono"}, each.run.id)},
  {name: "Outcome", class: "short", cell: (each) => runState(each.run)},
  {name: "Source", class: "cut", cell: (each) => foreign(each.name || each.run.title || "", 200)},
  {name: "Found", class: "short", cell: found},
  {name: "Scanned", class: "number short", cell: (each) => `${each.scanned} of ${count(each.files, "file")}`},
  {name: "Ended", class: "number short", cell: (each) => when(each.run.ended)},
];

function found(each) {
  const some = SEVERITIES.filter((level) => each.counts[level]);
  return some.length ? h("span", {class: "found"}, some.map((level) => severity(level, String(each.counts[level])))) : each.findings ? String(each.findings) : "nothing";
}

export async function view(_params, page) {
  await page.style("places.css");
  let rows = [];
  let more = false;
  const list = h("div", null);

  async function load(before = "") {
    const {reports} = await get("/reports", {limit: PAGE, before}, {signal: page.signal});
    more = reports.length === PAGE;
    rows = before ? [...rows, ...reports] : reports;
    if (!rows.length) return replace(list, empty("No reports yet", "A scan reads code, packages and files that may be hostile, in a sandbox without a network. Scan any folder or archive:", "madlab scan ."));
    replace(list, table(COLUMNS, rows, {label: "Reports", rowId: (each) => each.run.id, rowHref: (each) => reportHref(each.run.id)}),
      h("div", {class: "pager"}, h("span", null, `${rows.length} shown`), more && actButton("Older", () => load(rows.at(-1).sequence), {kind: "small"})));
  }

  await load();
  const soon = () => load().catch((error) => page.signal.aborted || console.warn(error));
  return {title: "Reports", node: h("div", null, head("Reports", {note: "What scans found, the newest first."}), h("div", {class: "card"}, list)), topics: ["runs"], refresh: soon,
    update: (event) => event.name === "run" && event.data.mad === "mcnamara" && event.data.state === "destroyed" && soon()};
}
