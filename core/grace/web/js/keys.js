// The page by keyboard: quick keys, the palette, and the list of keys. Nothing is taken from somebody who is typing.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {ago, words} from "./format.js";
import {icon} from "./icon.js";
import {button} from "./parts.js";

const PAUSE_MS = 1200; // between g and what follows
let go = null;
let places = [];
let acts = [];
let prefix = -Infinity; // when g was pressed

/** Begins. `places`: [{path, name, key, icon}], `acts`: [{name, icon, run}]. */
export function listen(options) {
  ({go, places, acts} = options);
  addEventListener("keydown", pressed);
  addEventListener("madlab:keys", showKeys);
  addEventListener("madlab:palette", showPalette);
}

function pressed(event) {
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey) {
    event.preventDefault();
    return showPalette();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest?.("input, textarea, select, [contenteditable], dialog")) return escaped(event);
  if (document.querySelector("dialog[open]")) return;
  const after = performance.now() - prefix < PAUSE_MS;
  prefix = -Infinity;
  if (after) {
    const place = places.find((each) => each.key === event.key);
    if (place) take(event, () => go(place.path));
    return;
  }
  switch (event.key) {
    case "g": prefix = performance.now(); break;
    case "/": take(event, () => (document.querySelector("main input[type=search]") ?? {focus: () => go("/search")}).focus()); break;
    case "?": take(event, showKeys); break;
    case "j": take(event, () => step(1)); break;
    case "k": take(event, () => step(-1)); break;
    case "u": take(event, () => document.querySelector(".crumbs a:last-of-type")?.click()); break;
  }
}

function take(event, act) {
  event.preventDefault();
  act();
}

function escaped(event) {
  if (event.key === "Escape" && event.target.matches("main input, main textarea, main select")) event.target.blur();
}

/** Moves along what can be opened: the links of rows, cards and lists marked `.item`. */
function step(by) {
  const items = [...document.querySelectorAll("main .item .item-link, main a.item")].filter((each) => each.checkVisibility());
  if (!items.length) return;
  const here = items.findIndex((each) => each === document.activeElement || each.closest(".item")?.contains(document.activeElement));
  const next = items[Math.min(items.length - 1, Math.max(0, here < 0 ? (by > 0 ? 0 : items.length - 1) : here + by))];
  next.focus();
  next.scrollIntoView({block: "nearest"});
}

function opened(props, ...children) {
  document.querySelector("dialog[open]")?.close();
  const dialog = h("dialog", {onclose: () => dialog.remove(), ...props}, children);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function showKeys() {
  const rows = [
    ["Ctrl K", "Go to a page or a run by name"],
    ["/", "Search in this page, or everywhere"],
    ["j  k", "Next and previous in a list"],
    ["Enter", "Open it"],
    ["u", "Up to the list it came from"],
    ["Esc", "Close, or leave a field"],
    ["?", "These keys"],
    ...places.map((each) => [`g ${each.key}`, each.name]),
  ];
  const dialog = opened({class: "dialog", "aria-labelledby": "keys-title"}, h("h2", {id: "keys-title"}, "Keys"),
    h("dl", {class: "keys"}, rows.map(([keys, what]) => h("div", null, h("dt", null, keys.split(/\s+/).map((each) => h("kbd", null, each))), h("dd", null, what)))),
    h("div", {class: "acts"}, button("Close", () => dialog.close(), {autofocus: true})));
}

async function showPalette() {
  const list = h("ul", {class: "palette-list", role: "listbox", id: "palette-list", "aria-label": "Places"});
  const input = h("input", {type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": "palette-list", "aria-autocomplete": "list", "aria-label": "Go to",
    autocomplete: "off", spellcheck: "false", placeholder: "Go to a page, a run, or search…", autofocus: true});
  const dialog = opened({class: "dialog palette", "aria-label": "Go to"}, input, list);
  let all = places.map((each) => ({name: each.name, note: `g ${each.key}`, path: each.path, icon: each.icon})).concat(acts.map((each) => ({...each, note: ""})));
  let found = [];
  let at = 0;
  const draw = () => {
    const text = input.value.trim().toLowerCase();
    found = all.filter((each) => text.split(/\s+/).every((word) => `${each.name} ${each.note}`.toLowerCase().includes(word))).slice(0, 12);
    if (text) found.push({name: `Search for “${input.value.trim().slice(0, 60)}”`, note: "everywhere", path: `/search?q=${encodeURIComponent(input.value.trim())}`, icon: "search"});
    at = Math.min(at, Math.max(0, found.length - 1));
    replace(list, found.map((each, place) => h("li", {role: "option", id: `palette-${place}`, "aria-selected": String(place === at), onclick: () => choose(each)},
      icon(each.icon), h("span", null, each.name), h("small", null, each.note))));
    found.length ? input.setAttribute("aria-activedescendant", `palette-${at}`) : input.removeAttribute("aria-activedescendant");
    list.children[at]?.scrollIntoView({block: "nearest"});
  };
  const choose = (each) => {
    dialog.close();
    each.run ? each.run() : go(each.path);
  };
  input.addEventListener("input", () => {
    at = 0;
    draw();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") take(event, () => (at = (at + 1) % Math.max(1, found.length), draw()));
    else if (event.key === "ArrowUp") take(event, () => (at = (at + found.length - 1) % Math.max(1, found.length), draw()));
    else if (event.key === "Enter" && found[at]) take(event, () => choose(found[at]));
  });
  draw();
  const {runs} = await get("/runs", {limit: 50}).catch(() => ({runs: []}));
  all = all.concat(runs.map((each) => ({name: each.id, note: `${words(each.outcome ?? each.state)}, ${ago(each.created)}`, path: `/runs/${encodeURIComponent(each.id)}`, icon: "runs"})));
  draw();
}
