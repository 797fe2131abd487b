// One message as people read it: who to whom, what, and what it carries. All of it may be a worker's: it is text.

import {download} from "./api.js";
import {h} from "./dom.js";
import {bytes, shown} from "./format.js";
import {icon} from "./icon.js";
import {actButton, foreign, when} from "./parts.js";

const LONG = 1_500; // characters that are shown before somebody asks for all of them
const MOST = 60_000;
const TAINTS = {web: "from the web", file: "from a file", worker: "from a worker", secret: "touched a secret"};

/** The list item of a message. `hrefOf(message)` makes its time a link. */
export function messageItem(message, {hrefOf} = {}) {
  const time = when(message.at, {as: "clock"});
  const call = message.tool && h("code", {class: "message-tool"}, shown(message.tool, 100), message.kind === "call" && "()");
  return h("li", {class: `message ${message.kind}`, id: `m-${message.id}`, data: {id: message.id}},
    h("div", {class: "message-head"},
      h("b", null, foreign(message.sender || "?", 100)),
      message.recipient && [h("span", {class: "quiet-text"}, "to"), foreign(message.recipient, 100)],
      h("span", {class: `tag ${message.kind === "fault" ? "bad" : "quiet"}`}, message.kind), call,
      (message.taint ?? []).map(taint),
      h("span", {class: "message-at"}, hrefOf ? h("a", {href: hrefOf(message)}, time) : time)),
    message.text && long(message.text), message.data !== null && message.data !== undefined && value(message.data),
    message.blobs?.length > 0 && blobs(message.blobs));
}

/** Where something came from that may mislead whoever reads it. */
export const taint = (label) => h("span", {class: `tag ${label === "worker" ? "quiet" : "warn"}`, title: "Where this came from: treat what it says with care"},
  label !== "worker" && icon("warn"), TAINTS[label] ?? label);

function long(text) {
  if (text.length <= LONG) return h("div", {class: "text"}, foreign(text));
  const rest = h("div", {class: "text"}, foreign(text, LONG));
  const all = h("button", {type: "button", class: "button small", onclick: () => {
    rest.replaceChildren(foreign(text, MOST));
    all.remove();
  }}, "Show all");
  return h("div", null, rest, all);
}

/** A value of JSON, indented; folded when it has more than so many lines. */
export function value(data, most = 12) {
  if (typeof data === "string") return long(data);
  const flat = JSON.stringify(data);
  if (flat === "{}" || flat === "[]") return null;
  if (flat.length < 90) return h("pre", {class: "json", tabindex: "0"}, shown(flat));
  const text = JSON.stringify(data, null, 2);
  const lines = text.split("\n").length;
  const pre = h("pre", {class: "json", tabindex: "0"}, shown(text, MOST));
  return lines <= most ? pre : h("details", null, h("summary", null, `${keysOf(data)} – ${lines} lines`), pre);
}

function keysOf(data) {
  if (Array.isArray(data)) return `a list of ${data.length}`;
  const keys = Object.keys(data);
  return shown(keys.slice(0, 5).join(", ") + (keys.length > 5 ? ", …" : ""), 120);
}

/** Files by digest, each with a button that saves it. */
export function blobs(list) {
  return h("ul", {class: "blobs"}, list.map((each) => h("li", null,
    actButton([icon("down"), foreign(each.name || each.digest.slice(0, 19), 120)], () => download(`/blobs/${encodeURIComponent(each.digest)}`, fileName(each)), {kind: "small"}),
    h("small", {class: "quiet-text"}, bytes(each.size)))));
}

/** A name that is safe to save under: no folders, nothing hidden. */
export const fileName = (blob) => shown(blob.name || blob.digest.slice(-16), 120).replace(/[/\\:*?"<>|\n\t]/g, "_").replace(/^\.+/, "_");
