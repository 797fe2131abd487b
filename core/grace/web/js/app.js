// The page itself: who may see it, where one is, what is always around, and which view fills the middle.
//
// A view is a module `view_NAME.js`: `export async function view(params, page)` → {title, node, topics?, update?, refresh?,
// leave?}. It is loaded when first needed. `params` holds the named parts of the address and `query`, what follows "?".
//   topics   what it wants to hear of besides the shell's own; `update({name, data, id})` is then called with each event
//   refresh  called when the stream came back after a break: what the events do not tell may be stale
//   leave    called when another view takes its place; `page.signal` is aborted then, too
// `page`: go(path), setQuery({…}), signal, status() (the latest of GET /status), reload(), await style("patch.css").

import {ask, forget, get, redeem, soon, token} from "./api.js";
import {h, replace} from "./dom.js";
import {ago} from "./format.js";
import {icon} from "./icon.js";
import {listen} from "./keys.js";
import {follow, mark as here, stop, watch} from "./live.js";
import {empty, failure, head, toast} from "./parts.js";

const ROUTES = [
  ["/", "attention"],
  ["/runs", "runs"],
  ["/runs/:id", "run"],
  ["/patches", "patches"],
  ["/patches/:run", "patch"],
  ["/reports", "reports"],
  ["/reports/:run", "report"],
  ["/conversations", "conversations"],
  ["/conversations/:id", "conversation"],
  ["/search", "search"],
  ["/lab", "lab"],
  ["/lab/:name", "lab"],
].map(([path, name]) => ({name, parts: path.split("/").slice(1), place: path.split("/")[1]}));

export const PLACES = [
  {path: "/", name: "Attention", icon: "attention", key: "a"},
  {path: "/runs", name: "Runs", icon: "runs", key: "r"},
  {path: "/patches", name: "Patches", icon: "patches", key: "p"},
  {path: "/reports", name: "Reports", icon: "reports", key: "e"},
  {path: "/conversations", name: "Conversations", icon: "conversations", key: "c"},
  {path: "/search", name: "Search", icon: "search", key: "s"},
  {path: "/lab", name: "Lab", icon: "lab", key: "l"},
];

const STATES = {
  connecting: ["connecting", "Connecting…"],
  live: ["live", "Live"],
  reconnecting: ["reconnecting", "Reconnecting…"],
  gone: ["reconnecting", "Gone. Type: madlab open"],
  "caught-up": ["live", "Caught up"],
  paused: ["connecting", "Paused"],
};
const THEMES = {auto: "light", light: "dark", dark: "auto"};

let current = null; // {view, abort, unfollow, address}
let steps = 0;
const shell = document.getElementById("shell");
const main = document.getElementById("main");

// --- where one is

function matched(path) {
  const parts = path.replace(/\/+$/, "").split("/").slice(1);
  if (!parts.length) parts.push("");
  for (const route of ROUTES) {
    if (route.parts.length !== parts.length) continue;
    const params = {};
    if (!route.parts.every((each, place) => each.startsWith(":") ? (params[each.slice(1)] = decoded(parts[place])) : each === parts[place])) continue;
    return {...route, params};
  }
  return null;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Goes to an address of the page, as a link would. */
export function go(path) {
  if (path === location.pathname + location.search) return show();
  history.replaceState({...history.state, y: scrollY}, "");
  history.pushState({}, "", path);
  return show();
}

/** Changes what follows "?", without a step in the history and without a new view. Empty values are taken out. */
function setQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) value ? query.set(name, value) : query.delete(name);
  const path = location.pathname + (query.size ? `?${query}` : "");
  history.replaceState(history.state, "", path);
  if (current) current.address = path;
}

async function show({restore = false} = {}) {
  const step = (steps += 1);
  const address = location.pathname + location.search;
  const route = matched(location.pathname);
  const abort = new AbortController();
  const page = {go, setQuery, signal: abort.signal, reload: () => show(), status: () => latest, style};
  shell.dataset.busy = "yes";
  markPlace(route?.place ?? null);
  let view;
  const since = await here();
  try {
    view = route ? await made(route, page) : lost();
  } catch (error) {
    if (step !== steps || error.status === 401) return;
    console.warn(error);
    view = {title: "Not shown", node: h("div", null, head("This cannot be shown"), failure(error, () => show())), refresh: () => error.status === 0 && show()};
  }
  if (step !== steps) return abort.abort();
  const same = current?.address === address;
  leave();
  delete shell.dataset.busy;
  current = {view, abort, address, unfollow: follow(view.topics ?? [], hear(view), since)};
  entitle(view.title);
  replace(main, view.node);
  if (restore) scrollTo(0, history.state?.y ?? 0);
  else if (!same) scrollTo(0, 0);
  if (steps > 1 && !same && !document.querySelector("dialog[open]")) main.querySelector("h1")?.focus({preventScroll: true});
}

async function made(route, page) {
  let module;
  try {
    module = await soon(import(`./view_${route.name}.js`));
  } catch (error) {
    console.warn(error);
    throw Object.assign(new Error("This part of the page could not be loaded."), {status: 0, next: "It is asked for again when the lab answers."});
  }
  return module.view({...route.params, query: new URLSearchParams(location.search)}, page);
}

/** Loads a file of styles that one view alone needs; once. */
function style(name) {
  const href = `/assets/${name}`;
  if (document.querySelector(`link[href="${href}"]`)) return null;
  return new Promise((resolve) => document.head.append(h("link", {rel: "stylesheet", href, onload: resolve, onerror: resolve})));
}

function hear(view) {
  return (event) => {
    if (event.name === "back") view.refresh?.();
    else view.update?.(event);
  };
}

function leave() {
  current?.abort.abort();
  current?.unfollow();
  current?.view.leave?.();
  current = null;
}

function lost() {
  return {title: "Nothing here", node: h("div", null, head("There is nothing at this address"), empty("The address may be from another lab, or mistyped.", h("a", {href: "/"}, "Go to the start")))};
}

// --- what is always around

let latest = null;
const links = new Map();
const badge = h("span", {class: "badge", hidden: true});
const liveWord = h("span", {class: "live-word"});
const liveState = h("span", {class: "live", role: "status"}, icon("live"), liveWord);
const labName = h("span", {class: "lab-name"});

function around() {
  const nav = h("nav", {class: "nav", id: "nav", "aria-label": "Main"}, h("ul", null, PLACES.map((each) => {
    const made = h("a", {href: each.path}, icon(each.icon), h("span", null, each.name), each.path === "/" && badge);
    links.set(each.path.slice(1), made);
    return h("li", null, made);
  })));
  const menu = h("button", {type: "button", class: "button bare square menu", "aria-expanded": "false", "aria-controls": "nav", "aria-label": "Menu",
    onclick: () => openMenu(shell.dataset.menu !== "open")}, icon("menu"));
  const openMenu = (on) => {
    menu.setAttribute("aria-expanded", String(on));
    on ? (shell.dataset.menu = "open") : delete shell.dataset.menu;
  };
  nav.addEventListener("click", () => openMenu(false));
  addEventListener("keydown", (event) => event.key === "Escape" && openMenu(false));
  const theme = h("button", {type: "button", class: "button bare square", onclick: () => setTheme(THEMES[chosenTheme()])});
  const keys = h("button", {type: "button", class: "button bare square keys-button", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)",
    onclick: () => dispatchEvent(new Event("madlab:keys"))}, icon("keys"));
  themeButton = theme;
  const bar = h("header", {class: "bar"}, menu, h("a", {class: "brand", href: "/", "aria-label": "madlab, start"}, mark(), "madlab"), labName,
    h("div", {class: "bar-end"}, liveState,
      h("button", {type: "button", class: "button bare palette-button", "aria-label": "Go to a page or a run", onclick: () => dispatchEvent(new Event("madlab:palette"))}, icon("search"), h("span", null, "Go to…"), h("kbd", null, "Ctrl K")),
      keys, theme));
  shell.prepend(bar, nav);
  setTheme(chosenTheme());
}

function mark() {
  return h("svg:svg", {class: "mark", viewBox: "0 0 32 32", "aria-hidden": "true"}, h("svg:rect", {width: 32, height: 32, rx: 7}),
    h("svg:path", {d: "M7 23V10l6 8 3-4 3 4 6-8v13"}));
}

function markPlace(place) {
  for (const [each, made] of links) each === place ? made.setAttribute("aria-current", "page") : made.removeAttribute("aria-current");
}

let themeButton = null;
const chosenTheme = () => localStorage.getItem("madlab-theme") ?? "auto";

function setTheme(theme) {
  theme === "auto" ? localStorage.removeItem("madlab-theme") : localStorage.setItem("madlab-theme", theme);
  document.documentElement.dataset.theme = theme;
  const name = `Colours: ${theme === "auto" ? "as the system" : theme}`;
  replace(themeButton, icon({auto: "auto", light: "sun", dark: "moon"}[theme]));
  themeButton.setAttribute("aria-label", name);
  themeButton.title = name;
}

let open = 0;
let titled = "";
function entitle(title) {
  titled = title;
  document.title = `${open ? `(${open}) ` : ""}${title} · madlab`;
}

/** How many things need a person: beside "Attention", and in the title of a page nobody looks at. */
export function setCount(n) {
  badge.hidden = !n;
  badge.textContent = n > 99 ? "99+" : String(n);
  links.get("").setAttribute("aria-label", n ? `Attention, ${n} open` : "Attention");
  open = n;
  entitle(titled);
}

function showState(state) {
  const [look, word] = STATES[state];
  liveState.dataset.state = look;
  if (liveWord.textContent !== word) liveWord.textContent = word;
  shell.dataset.stale = look === "reconnecting" ? "yes" : "no";
}

async function learn() {
  try {
    latest = await get("/status");
    labName.textContent = latest.lab.slice(0, 8);
    labName.title = `The lab ${latest.lab}, madlab ${latest.version}`;
  } catch (error) {
    if (error.status !== 401) console.warn(error);
  }
}

function hearOfAll(event) {
  if (event.name === "attention") setCount(event.data.items.length);
  if (event.name === "back") learn();
}

// --- who may see it

function signedOut() {
  leave();
  stop();
  forget();
  steps += 1;
  open = 0;
  entitle("Sign in");
  shell.dataset.out = "yes";
  delete shell.dataset.busy;
  replace(main, h("div", {class: "sign-in"}, mark(), h("h1", {tabindex: "-1"}, "This browser is not signed in"),
    h("p", null, "On the machine of the lab, type:"), h("pre", {class: "command"}, h("code", null, "madlab open")),
    h("p", {class: "note"}, "It opens this page with a ticket that can be used once. No password is stored, and no cookie.")));
  main.querySelector("h1").focus({preventScroll: true});
}

async function start() {
  around();
  addEventListener("madlab:signed-out", signedOut);
  try {
    await redeem();
  } catch (error) {
    toast(error.status === 401 ? "The ticket was used already, or is too old." : error.message, "bad");
  }
  if (!token()) return signedOut();
  delete shell.dataset.out;
  watch(showState);
  follow(["attention", "runs"], hearOfAll);
  learn();
  await show();
}

addEventListener("hashchange", async () => {
  if (!new URLSearchParams(location.hash.slice(1)).has("ticket")) return;
  location.reload();
});
addEventListener("popstate", () => token() && show({restore: true}));
addEventListener("storage", (event) => event.key === "madlab-token" && (event.newValue ? location.reload() : signedOut()));
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.origin !== location.origin || link.hasAttribute("download") || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
setInterval(() => {
  if (document.hidden) return;
  for (const each of document.querySelectorAll("time[data-at]")) {
    const text = ago(Number(each.dataset.at));
    if (each.textContent !== text) each.textContent = text;
  }
}, 5000);

async function leaveSession() {
  await ask("/sessions/current", {method: "DELETE"}).catch(() => null);
  signedOut();
}

listen({go, places: PLACES, acts: [
  {name: "Sign out of this browser", icon: "off", run: leaveSession},
  {name: "Change the colours", icon: "auto", run: () => setTheme(THEMES[chosenTheme()])},
]});
start();
