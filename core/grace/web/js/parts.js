// The parts that pages are made of. What looks alike everywhere is written once, here and in style.css.

import {h} from "./dom.js";
import {ago, clock, full, shown, words} from "./format.js";
import {icon} from "./icon.js";

// What a state or an outcome looks like: [drawing, tone]. The tone is a class; the word is always there too.
const LOOKS = {
  requested: ["waiting", "quiet"], admitted: ["waiting", "quiet"], starting: ["working", "busy"], ready: ["working", "busy"],
  running: ["working", "busy"], collecting: ["working", "busy"], destroyed: ["off", "quiet"],
  succeeded: ["good", "good"], partial: ["half", "warn"], failed: ["bad", "bad"], cancelled: ["off", "quiet"],
  timed_out: ["late", "warn"], out_of_budget: ["warn", "warn"], out_of_memory: ["bad", "bad"], out_of_disk: ["bad", "bad"],
  stuck: ["late", "warn"], lost: ["bad", "bad"], killed: ["bad", "bad"],
  good: ["good", "good"], bad: ["bad", "bad"], warn: ["warn", "warn"], quiet: ["off", "quiet"], busy: ["working", "busy"],
};

/** A state by shape, word and colour. `label` when the word is another than the state's own. */
export function state(name, label = words(name)) {
  const [drawing, tone] = LOOKS[name] ?? ["waiting", "quiet"];
  return h("span", {class: `state ${tone}`}, icon(drawing), label);
}

/** The state of a run: its outcome once it has one, its place in the queue while it waits. */
export function runState(run) {
  if (run.outcome) return state(run.outcome);
  return state(run.state, run.place ? `queued, ${run.place}.` : words(run.state));
}

/** The head of a page: its one h1, what is said below it, and its acts. */
export function head(title, {note, acts, crumbs} = {}) {
  return h("header", {class: "head"},
    h("div", {class: "head-words"},
      crumbs && h("nav", {class: "crumbs", "aria-label": "Where you are"}, crumbs),
      h("h1", {tabindex: "-1"}, title),
      note && h("div", {class: "note"}, note)),
    acts && h("div", {class: "acts"}, acts));
}

/** A titled box. `props` go to the section; `acts` stand at the right of its title. */
export function card(title, {acts, props, level = 2} = {}, ...children) {
  const id = `card-${(serial += 1)}`;
  return h("section", {...props, class: `card ${props?.class ?? ""}`, "aria-labelledby": id},
    h("div", {class: "card-head"}, h(`h${level}`, {id}, title), acts && h("div", {class: "acts"}, acts)),
    children);
}
let serial = 0;

/** What a place looks like with nothing in it: what it is for, and what to type first. */
export function empty(title, text, ...commands) {
  return h("div", {class: "empty"}, h("p", {class: "empty-title"}, title), text && h("p", null, text),
    commands.map((each) => h("pre", {class: "command", tabindex: "0", role: "region", "aria-label": "Command"}, h("code", null, each))));
}

/** A button. `kind`: "", "primary", "danger" or "bare". */
export function button(label, onclick, {kind = "", ...props} = {}) {
  return h("button", {type: "button", class: `button ${kind}`, onclick, ...props}, label);
}

/** A button that waits for what it starts, and says in place when that fails. `act` may return a word to show after. */
export function actButton(label, act, {kind = "", ...props} = {}) {
  const made = button(label, async () => {
    if (made.getAttribute("aria-disabled")) return;
    made.setAttribute("aria-disabled", "true");
    made.classList.add("waits");
    try {
      await act();
    } catch (error) {
      toast(said(error), "bad");
    } finally {
      made.removeAttribute("aria-disabled");
      made.classList.remove("waits");
    }
  }, {kind, ...props});
  return made;
}

/** A link within the page. */
export const link = (href, ...children) => h("a", {href}, children);

/** A time: how long ago, the exact one on hover; `data-at` keeps it true while the page stands. */
export function when(at, {as = "ago"} = {}) {
  if (!at) return h("span", {class: "quiet-text"}, "–");
  const iso = new Date(at * 1000).toISOString();
  return h("time", {datetime: iso, title: full(at), data: as === "ago" ? {at} : {}}, as === "ago" ? ago(at) : clock(at));
}

/** Text that somebody else wrote. */
export const foreign = (text, limit) => h("bdi", {class: "foreign", dir: "auto"}, shown(text, limit));

/** A list of names and values. `pairs`: [[name, value], …]; pairs whose value is null are left out. */
export function facts(pairs) {
  return h("dl", {class: "facts"}, pairs.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) =>
    h("div", null, h("dt", null, name), h("dd", null, value))));
}

/** What a person is to approve, whole, and as it is. `form`: [{name, text}, …]. */
export function formOf(form) {
  return h("dl", {class: "facts form"}, form.map(({name, text}) => h("div", null, h("dt", null, shown(name)), h("dd", null, foreign(text, Infinity)))));
}

/** A number that matters, with what it is. */
export function figure(name, value, {note, tone = ""} = {}) {
  return h("div", {class: `figure ${tone}`}, h("dt", null, name), h("dd", null, value, note && h("small", null, note)));
}

/** A table that becomes cards where there is no room. `columns`: [{name, key?, class?, cell(row)}]; `rowHref(row)` makes
 *  the row's first cell its link, and the row an item for j, k and Enter. */
export function table(columns, rows, {label, rowId, rowHref} = {}) {
  const body = h("tbody", null, rows.map((each) => tableRow(columns, each, {rowId, rowHref})));
  return h("table", {class: "rows", "aria-label": label},
    h("thead", null, h("tr", null, columns.map((each) => h("th", {scope: "col", class: each.class}, each.name)))), body);
}

export function tableRow(columns, row, {rowId, rowHref} = {}) {
  const href = rowHref?.(row);
  return h("tr", {data: {...(rowId && {id: rowId(row)}), ...(href && {href})}, class: href ? "item" : null},
    columns.map((each, place) => {
      const cell = each.cell(row);
      const inner = place === 0 && href ? h("a", {class: "item-link", href}, cell) : cell;
      return h("td", {class: each.class, data: {name: each.name}}, inner);
    }));
}

/** A choice in a row of filters. `options`: [[value, word], …]. */
export function choice(label, options, value, onchange) {
  const made = h("select", {onchange: () => onchange(made.value)},
    options.map(([each, word]) => h("option", {value: each, selected: each === value}, word)));
  made.value = value;
  return h("label", {class: "field"}, h("span", null, label), made);
}

/** A line of text in a row of filters; tells `onchange` when the hand rests. */
export function search(label, value, onchange, props = {}) {
  let timer = 0;
  const made = h("input", {type: "search", value, autocomplete: "off", spellcheck: "false", ...props,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => onchange(made.value), 250);
    }});
  return h("label", {class: "field grow"}, h("span", null, label), made);
}

/** What went wrong, in words: what, and what to do next. */
export const said = (error) => [error.message, error.next].filter(Boolean).join(" – ");

/** An error in the place of what could not be shown. */
export function failure(error, again) {
  return h("div", {class: "empty bad", role: "alert"}, h("p", {class: "empty-title"}, icon("bad"), shown(error.message, 500)),
    error.next && h("p", null, shown(error.next, 500)), again && button("Try again", again));
}

/** A word that passes by: what was done, or what could not be. */
export function toast(text, tone = "good") {
  const box = document.getElementById("toasts");
  const made = h("div", {class: `toast ${tone}`, role: tone === "bad" ? "alert" : "status"}, icon(tone), h("span", null, shown(text, 500)),
    h("button", {type: "button", class: "button bare square", "aria-label": "Dismiss", onclick: () => made.remove()}, icon("close")));
  box.append(made);
  while (box.children.length > 4) box.firstChild.remove();
  setTimeout(() => made.remove(), tone === "bad" ? 15_000 : 6_000);
}

/** Says something to a screen reader, once, without moving anything. */
export function announce(text) {
  document.getElementById("polite").textContent = shown(text, 300);
}

/** Asks once more. Resolves to true when the person means it, or to the text when `field` asks for one. `body` is a node
 *  that is to be read before. */
export function ask({title, text, body, yes, kind = "primary", field, secret = false}) {
  return new Promise((resolve) => {
    const input = field && (secret ? h("input", {type: "password", "aria-label": field, placeholder: field, maxlength: "1024", autocomplete: "off"})
      : h("textarea", {rows: "4", "aria-label": field, maxlength: "8000"}));
    const answer = () => dialog.close(input ? input.value.trim() && "yes" : "yes");
    const dialog = h("dialog", {class: `dialog ${body ? "wide" : ""}`, "aria-labelledby": "ask-title",
      onclose: () => {
        resolve(dialog.returnValue === "yes" ? (input ? input.value.trim() : true) : false);
        dialog.remove();
      }},
      h("h2", {id: "ask-title"}, title), text && h("p", null, shown(text, 1000)),
      body && h("div", {class: "read-before", tabindex: "0", role: "region", "aria-label": "What is approved"}, body), input,
      h("div", {class: "acts"}, button("Cancel", () => dialog.close("no")), button(yes, answer, {kind})));
    document.body.append(dialog);
    dialog.showModal();
    (input ?? dialog.querySelector(".acts .button")).focus();
  });
}
