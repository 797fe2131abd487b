// The lines of a run: the last some thousands in memory, some hundreds in the page, and a word on what is not.

import {h, replace} from "./dom.js";
import {clock, count, shown} from "./format.js";
import {button} from "./parts.js";

export const KEPT = 20_000; // lines in memory
const WINDOW = 400; // lines in the page
const LONGEST = 2_000; // characters of one

/** `{node, add(lines), size()}`; a line is {id, at, sender, text, level?}. */
export function lines({label, hint}) {
  let all = [];
  let forgotten = 0;
  let found = null; // those that match, when something is looked for
  let end = null; // where the window ends; null: it follows the newest
  let drawing = 0;
  const body = h("div", {class: "log", role: "log", "aria-live": "off", "aria-label": label, tabindex: "0"});
  const note = h("span", {class: "quiet-text"});
  const earlier = button("Earlier", () => turn(-1), {kind: "small"});
  const later = button("Later", () => turn(1), {kind: "small"});
  const newest = button("Newest", () => turn(0), {kind: "small"});
  const input = h("input", {type: "search", class: "log-search", "aria-label": `Look for a word in: ${label}`, placeholder: "Find in lines", oninput: () => {
    const word = input.value.toLowerCase();
    found = word ? all.filter((each) => each.text.toLowerCase().includes(word)) : null;
    end = null;
    draw();
  }});
  const node = h("div", null, h("div", {class: "log-bar"}, input, note, h("div", {class: "acts"}, earlier, later, newest)), body);
  draw();

  function add(fresh) {
    if (!fresh.length) return;
    all.push(...fresh);
    if (all.length > KEPT) {
      forgotten += all.length - KEPT;
      if (end !== null && !found) end = Math.max(WINDOW, end - (all.length - KEPT));
      all = all.slice(-KEPT);
    }
    if (found) found.push(...fresh.filter((each) => each.text.toLowerCase().includes(input.value.toLowerCase())));
    if (!drawing) drawing = requestAnimationFrame(draw);
  }

  function turn(by) {
    const size = (found ?? all).length;
    end = by === 0 ? null : Math.max(Math.min(WINDOW, size), Math.min(size, (end ?? size) + by * (WINDOW - 50)));
    if (end !== null && end >= size) end = null;
    draw();
    body.scrollTop = by < 0 ? 0 : body.scrollHeight;
  }

  function draw() {
    drawing = 0;
    const some = found ?? all;
    const last = end ?? some.length;
    const first = Math.max(0, last - WINDOW);
    const follows = end === null && body.scrollHeight - body.scrollTop - body.clientHeight < 40;
    replace(body, some.slice(first, last).map(row), !some.length && h("p", {class: "quiet-text"}, found ? "No line has that word." : hint));
    if (follows) body.scrollTop = body.scrollHeight;
    note.textContent = [some.length > WINDOW ? `${first + 1}–${last} of ${count(some.length, "line")}` : some.length ? count(some.length, "line") : "",
      forgotten && `${count(forgotten, "earlier line")} not kept here`].filter(Boolean).join("; ");
    earlier.hidden = first === 0;
    later.hidden = newest.hidden = end === null;
  }

  return {node, add, size: () => all.length};
}

function row(line) {
  return h("div", {class: `line is-${line.level}`}, h("span", {class: "line-at"}, clock(line.at)), h("bdi", {dir: "auto"}, shown(line.text, LONGEST)));
}
