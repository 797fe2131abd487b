// One conversation: read from the end backwards, followed as it goes on, spoken in. Where each message comes from, and
// what it has touched, stands at it; a call and its answer stand together.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {count, shown, words} from "./format.js";
import {messageItem} from "./message.js";
import {actButton, button, card, facts, foreign, head, link, state, when} from "./parts.js";
import {speakBox} from "./speak.js";
import {runHref} from "./view_runs.js";
import {tagList, talkHref} from "./view_conversations.js";

const PAGE = 60;
const MOST = 400; // messages in the page at once
const NEWEST = 10 ** 17;
const QUIET = new Set(["log", "progress", "metric"]);

export async function view({id, query}, page) {
  await page.style("places.css");
  const path = `/conversations/${encodeURIComponent(id)}`;
  const place = Number(query.get("at") ?? 0);
  const within = id.includes("/");
  let about = null;
  let said = [];
  let earlier = true;
  let later = false;
  let events = query.get("events") === "1";
  const known = new Map(); // id → node
  const list = h("ol", {class: "thread", "aria-label": "Messages"});
  const before = h("div", null);
  const after = h("div", null);
  const side = h("div", {class: "stack"});
  const runs = new Map(); // the message that began it → the run

  async function load(params) {
    const {messages} = await get(`${path}/messages`, {limit: PAGE, ...params}, {signal: page.signal});
    return messages;
  }

  function take(messages) {
    const had = new Set(said.map((each) => each.id));
    said = [...said, ...messages.filter((each) => !had.has(each.id))].sort((a, b) => (a.sequence || NEWEST) - (b.sequence || NEWEST));
  }

  function item(each) {
    const node = messageItem(each, {hrefOf: (one) => talkHref(id, one.sequence || "")});
    const run = runs.get(each.id);
    if (run) node.querySelector(".message-head").insertBefore(h("a", {class: "run-link", href: runHref(run.id)}, shown(run.id, 80)), node.querySelector(".message-at"));
    if (each.in_reply_to && said.some((one) => one.id === each.in_reply_to)) node.classList.add("pair");
    if (each.sender === "operator") node.classList.add("own");
    if (place && each.sequence === place) node.classList.add("found");
    const foldable = each.kind === "call" || each.kind === "reply" || each.kind === "event";
    if (foldable) fold(node, each);
    return node;
  }

  /** A call, a reply or an event whose text is long begins folded: who to whom and what stays in sight. */
  function fold(node, each) {
    const bodies = [...node.children].slice(1);
    const long = (each.text?.length ?? 0) + (each.data ? JSON.stringify(each.data).length : 0) > 600;
    if (!bodies.length || !long || (place && each.sequence === place)) return;
    const first = shown((each.text || JSON.stringify(each.data)).slice(0, 120), 120).replaceAll("\n", " ");
    node.append(h("details", null, h("summary", null, h("bdi", null, first), "…"), bodies));
  }

  function draw() {
    const wanted = said.filter((each) => events || each.kind !== "event" || !QUIET.has(each.tool));
    const shownNow = place && later ? wanted.slice(0, MOST) : wanted.slice(-MOST);
    const follows = innerHeight + scrollY > document.documentElement.scrollHeight - 120;
    replace(list, shownNow.map((each) => {
      if (!known.has(each.id)) known.set(each.id, item(each));
      return known.get(each.id);
    }));
    if (!shownNow.length) replace(list, h("li", {class: "message quiet-text"}, said.length ? "Only progress so far: show it with the button above." : "Nothing is said here, or retention has taken it."));
    replace(before, earlier && h("div", {class: "pager"}, actButton("Earlier", back, {kind: "small"}), h("span", null, "from the beginning on")));
    replace(after, later && h("div", {class: "pager"}, actButton("Later", forth, {kind: "small"}), actButton("To the newest", newest, {kind: "small"})));
    if (follows && !later && known.size > PAGE) scrollTo(0, document.documentElement.scrollHeight);
  }

  async function back() {
    const height = document.documentElement.scrollHeight;
    const messages = await load({before: said[0]?.sequence ?? NEWEST});
    earlier = messages.length === PAGE;
    take(messages);
    draw();
    scrollBy(0, document.documentElement.scrollHeight - height);
  }

  async function forth() {
    const messages = await load({after: said.at(-1)?.sequence ?? 0});
    later = messages.length === PAGE;
    take(messages);
    draw();
  }

  async function newest() {
    page.setQuery({at: ""});
    said = [];
    known.clear();
    const messages = await load({before: NEWEST});
    earlier = messages.length === PAGE;
    later = false;
    take(messages);
    draw();
  }

  async function begin() {
    const messages = await load(place ? {around: place} : {before: NEWEST});
    earlier = messages.length > 0 && (place > 0 || messages.length === PAGE);
    later = place > 0 && messages.length === PAGE;
    take(messages);
  }

  async function learn() {
    about = await get(`${path}/about`, {}, {signal: page.signal});
    const fresh = about.runs.filter((each) => !runs.has(each.trigger));
    for (const each of about.runs) runs.set(each.trigger, each);
    for (const each of fresh) known.delete(each.trigger);
    drawSide();
  }

  function drawSide() {
    replace(side, card("About", {}, h("div", {class: "card-body"}, facts([["Name", h("span", {class: "mono"}, foreign(id, 200))], ["Begun", when(about.started, {as: "clock"})], ["Last word", when(about.updated)],
      ["Within", within ? link(talkHref(id.slice(0, id.lastIndexOf("/"))), foreign(id.slice(0, id.lastIndexOf("/")), 200)) : null], ["Listening", about.members.length ? foreign(about.members.join(", "), 300) : null], ["Tags", tagList(about.tags) || null]]))),
      about.runs.length > 0 && card("Runs", {}, h("ul", {class: "mini"}, about.runs.slice(0, 40).map((each) => h("li", {class: "item"}, h("a", {class: "item-link", href: runHref(each.id)}, state(each.outcome ?? each.state), h("span", {class: "mini-title mono"}, each.id)))))),
      about.inner.length > 0 && card("Within it", {}, h("ul", {class: "mini"}, about.inner.slice(0, 80).map((each) => h("li", {class: "item"}, h("a", {class: "item-link", href: talkHref(each)}, h("span", {class: "mini-title mono"}, foreign(each.slice(id.length + 1), 120))))))));
  }

  let learning = 0;
  function update(event) {
    if (event.name === "run") {
      clearTimeout(learning);
      learning = setTimeout(() => learn().then(draw).catch((error) => page.signal.aborted || console.warn(error)), 400);
    }
    if (event.name !== "message" || event.data.conversation !== id || later) return;
    take([event.data]);
    known.delete(event.data.id); // it may have been told before it was durable
    draw();
  }

  async function refresh() {
    if (later) return;
    take(await load({after: said.findLast((each) => each.sequence)?.sequence ?? 0}));
    await learn();
    draw();
  }

  await begin();
  await learn();
  draw();
  const partner = said.findLast((each) => each.sender !== "operator" && each.sender !== "core")?.sender ?? said.find((each) => each.recipient)?.recipient ?? "";
  const speak = !within && await speakBox({page, conversation: id, recipient: partner, said: () => later && newest()});
  const toggle = button(events ? "Hide progress" : "Show progress", () => {
    events = !events;
    toggle.textContent = events ? "Hide progress" : "Show progress";
    page.setQuery({events: events ? "1" : ""});
    draw();
  }, {kind: "small"});
  const node = h("div", null, head(h("span", {class: "patch-title"}, foreign(about.title || id, 160)), {crumbs: link("/conversations", "Conversations"), note: h("span", {class: "run-title"}, h("span", null, `${count(about.runs.length, "run")}, begun by `, foreign(about.sender || "nobody", 80)), tagList(about.tags))}),
    h("div", {class: "columns"}, h("section", {class: "card", "aria-label": "What was said"}, h("div", {class: "card-head"}, h("h2", null, "Messages"), h("div", {class: "acts"}, toggle)), before, list, after, speak && speak.node), side));
  queueMicrotask(() => requestAnimationFrame(() => (place ? list.querySelector(".found")?.scrollIntoView({block: "center"}) : said.length > 8 && scrollTo(0, document.documentElement.scrollHeight))));
  return {title: shown(about.title || words(id), 60), node, topics: [`conversation:${id}`], update, refresh, leave: () => clearTimeout(learning)};
}

