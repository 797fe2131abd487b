// A diff in the page: two columns where there is room for them, one where there is not. The lines are data of the door
// (files, hunks, numbered lines with what changed within them); everything in them is somebody else's text.

import {h, replace} from "./dom.js";
import {shown} from "./format.js";
import {icon} from "./icon.js";
import {actButton, foreign} from "./parts.js";

const KINDS = {added: ["good", "added"], modified: ["busy", "modified"], deleted: ["bad", "deleted"], mode: ["quiet", "mode"]};
const MODES = {100644: "file", 100755: "executable", 120000: "link", 160000: "submodule"};
const OPEN_LINES = 1_200; // files beyond so many lines begin folded
const LONGEST = 1_100;

/** `{node, files: [{node, hunks}], show({side, blank})}`; `load(number)` fetches the lines of a file that are not here. */
export function diffView(files, load) {
  let lines = 0;
  const look = {side: true, blank: false};
  const made = files.map((file, number) => {
    const begins = lines;
    lines += file.hunks.reduce((sum, each) => sum + each.lines.length, 0);
    return fileBox(file, number, begins < OPEN_LINES, load, look);
  });
  const node = h("div", {class: "diff"}, made.map((each) => each.node));
  return {node, files: made, show(next) {
    Object.assign(look, next);
    node.classList.toggle("unified", !look.side);
    for (const each of made) each.draw();
  }};
}

/** How a file's name stands in a list: cut at the front, since its end says more. */
export const fileAnchor = (number) => `file-${number}`;

function fileBox(file, number, open, load, look) {
  const body = h("div", {class: "diff-body"});
  const mode = file.old_mode !== file.mode && file.old_mode && file.mode ? `${modeName(file.old_mode)} → ${modeName(file.mode)}` : file.mode && file.mode !== "100644" ? modeName(file.mode) : file.old_mode === "120000" ? "link" : "";
  const [tone, word] = KINDS[file.kind] ?? ["quiet", file.kind];
  const node = h("details", {class: "diff-file", id: fileAnchor(number), open},
    h("summary", {class: "diff-head"}, h("span", {class: `tag ${tone}`}, word), h("h3", {class: "mono", tabindex: "-1"}, foreign(file.path, 400)),
      mode && h("span", {class: "tag warn"}, mode), h("span", {class: "diff-size"}, h("span", {class: "come"}, `+${file.added}`), " ", h("span", {class: "gone"}, `−${file.removed}`))), body);
  node.addEventListener("toggle", () => node.open && !body.childElementCount && draw());

  function draw() {
    if (!node.open) return void replace(body);
    const hunks = look.blank ? file.hunks.map(withoutBlank) : file.hunks;
    replace(body, hunks.map((each) => hunkTable(each, look.side, file.path)), told());
  }

  function told() {
    if (file.binary) return h("p", {class: "diff-note"}, icon("warn"), file.whole ? "Binary: nobody can read it here." : "Too big to be shown: only its name is in the patch.");
    if (file.cut || !file.shown && file.added + file.removed > 0) {
      return h("p", {class: "diff-note"}, `${file.shown ? "Only the first lines are" : "Its lines are not"} shown. `, actButton("Load its lines", async () => {
        Object.assign(file, await load(number), {path: file.path});
        if (file.cut) file.cut = false;
        draw();
      }, {kind: "small"}));
    }
    return !file.hunks.length && h("p", {class: "diff-note"}, file.kind === "mode" ? "Only its mode changes." : "It is empty.");
  }

  if (open) draw();
  return {node, file, draw, open() {
    node.open = true;
    if (!body.childElementCount) draw();
  }};
}

const modeName = (mode) => MODES[Number(mode)] ?? mode;

/** The same hunk with lines that differ in blanks only told as unchanged. */
function withoutBlank(hunk) {
  const bare = (line) => line.text.replace(/\s+/g, "");
  const lines = [];
  for (let at = 0; at < hunk.lines.length;) {
    let middle = at;
    while (hunk.lines[middle]?.sign === "-") middle += 1;
    let end = middle;
    while (hunk.lines[end]?.sign === "+") end += 1;
    if (end === at) {
      lines.push(hunk.lines[at]);
      at += 1;
      continue;
    }
    const [gone, come] = [hunk.lines.slice(at, middle), hunk.lines.slice(middle, end)];
    if (gone.length === come.length && gone.every((each, place) => bare(each) === bare(come[place]))) come.forEach((each, place) => lines.push({sign: " ", old: gone[place].old, new: each.new, text: each.text}));
    else lines.push(...gone, ...come);
    at = end;
  }
  return {...hunk, lines};
}

function hunkTable(hunk, side, path) {
  const heading = `Lines from ${hunk.old} on, now from ${hunk.new} on${hunk.heading ? `, in ${hunk.heading}` : ""}`;
  const rows = side ? sideRows(hunk.lines) : hunk.lines.map(oneRow);
  return h("table", {class: "hunk", tabindex: "-1", "aria-label": shown(`${path}: ${heading}`, 300)},
    h("colgroup", null, (side ? ["line-number", "", "line-number", ""] : ["line-number", "line-number", ""]).map((each) => h("col", {class: each}))),
    h("tbody", null, h("tr", {class: "hunk-head"}, h("td", {colspan: side ? 4 : 3}, h("span", {class: "mono"}, `@@ ${hunk.old} → ${hunk.new} @@ `), foreign(hunk.heading, 200))), rows));
}

function oneRow(line) {
  const kind = {"+": "come", "-": "gone"}[line.sign] ?? "same";
  return h("tr", {class: kind}, numberCell(line.old), numberCell(line.new), codeCell(line, kind));
}

function sideRows(lines) {
  const rows = [];
  for (let at = 0; at < lines.length;) {
    if (lines[at].sign === " ") {
      const line = lines[at];
      rows.push(h("tr", {class: "same"}, numberCell(line.old), codeCell(line, "same"), numberCell(line.new), codeCell(line, "same")));
      at += 1;
      continue;
    }
    const gone = [], come = [];
    while (lines[at]?.sign === "-") gone.push(lines[at++]);
    while (lines[at]?.sign === "+") come.push(lines[at++]);
    for (let place = 0; place < Math.max(gone.length, come.length); place += 1) {
      rows.push(h("tr", null, half(gone[place], "gone", "old"), half(come[place], "come", "new")));
    }
    if (!gone.length && !come.length) at += 1;
  }
  return rows;
}

const half = (line, kind, key) => line ? [numberCell(line[key], kind), codeCell(line, kind)] : [h("td", {class: "line-number none"}), h("td", {class: "code none"})];
const numberCell = (number, kind = "") => h("td", {class: `line-number ${kind}`}, number ?? "");

function codeCell(line, kind) {
  const sign = {come: "+", gone: "−", same: " "}[kind];
  const parts = line.parts && kind !== "same" ? line.parts.map(([text, changed]) => changed ? h(kind === "come" ? "ins" : "del", null, shown(text, LONGEST)) : shown(text, LONGEST)) : shown(line.text, LONGEST);
  return h("td", {class: `code ${kind}`}, h("span", {class: "sign", "aria-hidden": kind === "same" ? "true" : null}, sign), kind !== "same" && h("span", {class: "unseen"}, kind === "come" ? "added: " : "removed: "), h("bdi", {dir: "ltr"}, parts),
    line.ended === false && h("span", {class: "tag warn"}, "no line end"));
}

/** The files as a tree of folders, each a link to its place in the diff. */
export function fileTree(files, go) {
  const root = {folders: new Map(), files: []};
  files.forEach((file, number) => {
    const parts = file.path.split("/");
    const name = parts.pop();
    let place = root;
    for (const each of parts) {
      if (!place.folders.has(each)) place.folders.set(each, {folders: new Map(), files: []});
      place = place.folders.get(each);
    }
    place.files.push({file, number, name});
  });
  return h("nav", {"aria-label": "Files of the patch"}, branch(root, go));
}

function branch(place, go) {
  return h("ul", {class: "tree"},
    [...place.folders].map(([name, inner]) => {
      const path = [name];
      while (!inner.files.length && inner.folders.size === 1) {
        const [[next, deeper]] = inner.folders;
        path.push(next);
        inner = deeper;
      }
      return h("li", null, h("span", {class: "tree-folder"}, foreign(`${path.join("/")}/`, 200)), branch(inner, go));
    }),
    place.files.map(({file, number, name}) => h("li", null, h("a", {class: "item tree-file", href: `#${fileAnchor(number)}`, onclick: (event) => {
      event.preventDefault();
      go(number);
    }}, h("span", {class: `tree-kind ${(KINDS[file.kind] ?? ["quiet"])[0]}`, title: file.kind}, {added: "+", deleted: "−", mode: "m"}[file.kind] ?? "·"), h("span", {class: "unseen"}, `${file.kind}: `), h("span", {class: "tree-name"}, foreign(name, 200)), h("span", {class: "diff-size"}, h("span", {class: "come"}, `+${file.added}`), " ", h("span", {class: "gone"}, `−${file.removed}`))))));
}

/** Moves through `nodes` by a step from where one is; returns the one that is reached. */
export function stepTo(nodes, by) {
  if (!nodes.length) return null;
  const top = 120;
  const here = nodes.indexOf(document.activeElement);
  const next = here >= 0 ? here + by : by > 0 ? nodes.findIndex((each) => each.getBoundingClientRect().top > top + 4) : nodes.findLastIndex((each) => each.getBoundingClientRect().top < top - 4);
  const node = nodes[Math.min(nodes.length - 1, Math.max(0, next < 0 && by > 0 ? nodes.length - 1 : next))];
  node.scrollIntoView({block: "start"});
  node.focus({preventScroll: true});
  return node;
}

