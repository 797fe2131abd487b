// The box in which the operator speaks. A word "@name" at the beginning says to whom; the names are the lab's MADs.
//
// What an @mention does: the message is addressed to that MAD. A resident reads it at once; for an eMAD a run begins,
// since somebody has to listen, and the page links to it. Only one MAD can be spoken to at a time.

import {get, post} from "./api.js";
import {h, replace} from "./dom.js";
import {shown} from "./format.js";
import {actButton, announce, foreign, toast} from "./parts.js";

const MENTION = /@([a-z0-9][a-z0-9_-]*)?$/i;
const LEADING = /^\s*@([a-z0-9][a-z0-9_-]*)\b[:,]?\s*/i;
const LONGEST = 12_000;

/** `{node, to(name)}`; `conversation` is where it is said (empty: a new one), `said(answer)` hears what the door says. */
export async function speakBox({page, conversation = "", recipient = "", said}) {
  const {mads} = await get("/mads", {}, {signal: page.signal});
  const names = mads.map((each) => each.name);
  let to = names.includes(recipient) ? recipient : "";
  let found = [];
  let at = 0;
  const list = h("ul", {class: "mentions", role: "listbox", id: "mentions", "aria-label": "MADs", hidden: true});
  const whom = h("span", {role: "status"});
  const input = h("textarea", {rows: "3", maxlength: String(LONGEST), placeholder: "@name and what to say", "aria-label": "What to say", role: "combobox", "aria-expanded": "false", "aria-controls": "mentions", "aria-autocomplete": "list"});
  const send = actButton("Say it", say, {kind: "primary"});
  const node = h("div", {class: "speak"}, input, list, h("div", {class: "speak-row"}, whom, h("span", {class: "keys-hint"}, h("kbd", null, "Ctrl"), " ", h("kbd", null, "Enter")), send));

  function addressed() {
    const named = LEADING.exec(input.value)?.[1]?.toLowerCase();
    return names.includes(named) ? named : to;
  }

  function draw() {
    const name = addressed();
    const mad = mads.find((each) => each.name === name);
    replace(whom, name ? ["To ", h("b", null, name), mad.kind === "resident" ? ", which reads it at once." : ". A run of it begins."] : "To nobody yet: begin with @ and the name of a MAD.");
  }

  function complete() {
    const before = input.value.slice(0, input.selectionStart);
    const word = MENTION.exec(before);
    found = word ? mads.filter((each) => each.name.startsWith((word[1] ?? "").toLowerCase())).slice(0, 8) : [];
    at = Math.min(at, Math.max(0, found.length - 1));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
    replace(list, found.map((each, place) => h("li", {role: "option", id: `mention-${place}`, "aria-selected": String(place === at), onmousedown: (event) => {
      event.preventDefault();
      take(each.name);
    }}, h("b", null, `@${shown(each.name, 64)}`), h("small", null, foreign(each.summary, 160)))));
    found.length ? input.setAttribute("aria-activedescendant", `mention-${at}`) : input.removeAttribute("aria-activedescendant");
    draw();
  }

  function take(name) {
    const end = input.selectionStart;
    const begin = end - MENTION.exec(input.value.slice(0, end))[0].length;
    input.setRangeText(`@${name} `, begin, end, "end");
    at = 0;
    complete();
  }

  async function say() {
    const name = addressed();
    const text = input.value.replace(LEADING, (whole, each) => names.includes(each.toLowerCase()) ? "" : whole).trim();
    if (!name || !text) {
      input.focus();
      return toast(name ? "There is nothing to say." : "Say to whom: begin with @ and a name.", "warn");
    }
    const answer = await post("/messages", {recipient: name, kind: "prose", text, ...(conversation && {conversation})});
    to = name;
    input.value = "";
    complete();
    announce(`Said to ${name}.`);
    said(answer);
  }

  input.addEventListener("input", complete);
  input.addEventListener("blur", () => (list.hidden = true));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      return send.click();
    }
    if (list.hidden) return;
    const act = {ArrowDown: () => (at = (at + 1) % found.length), ArrowUp: () => (at = (at + found.length - 1) % found.length), Enter: () => take(found[at].name), Tab: () => take(found[at].name), Escape: () => (list.hidden = true)}[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
    if (event.key.startsWith("Arrow")) complete();
  });
  draw();
  return {node, to(name) {
    if (names.includes(name)) to = name;
    draw();
  }};
}
