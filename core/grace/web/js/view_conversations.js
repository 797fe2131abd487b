// What is said in the lab: the conversations, the last spoken in first, by tag if one is chosen; and a new one.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {shown} from "./format.js";
import {actButton, button, card, empty, foreign, head, search, table, when} from "./parts.js";
import {speakBox} from "./speak.js";

const PAGE = 50;
const LATER_MS = 1_500;

export const talkHref = (id, at) => `/conversations/${encodeURIComponent(id)}${at ? `?at=${at}` : ""}`;

/** Tags, each a link to the conversations that have it. */
export const tagList = (tags) => tags.length > 0 && h("span", {class: "tags"}, tags.slice(0, 8).map((each) => h("a", {class: "tag", href: `/conversations?tag=${encodeURIComponent(each)}`}, `#${shown(each, 42)}`)));

const COLUMNS = [
  {name: "About", class: "cut", cell: (each) => foreign(each.title || each.id, 200)},
  {name: "Between", class: "short", cell: (each) => foreign([each.sender, each.recipient].filter(Boolean).join(" → "), 80)},
  {name: "Tags", class: "short", cell: (each) => tagList(each.tags) || ""},
  {name: "Last word", class: "number short", cell: (each) => when(each.updated)},
];

export async function view({query}, page) {
  await page.style("places.css");
  let tag = (query.get("tag") ?? "").replace(/^#/, "");
  let rows = [];
  let more = false;
  let timer = 0;
  const list = h("div", null);

  async function load(before = "") {
    const {conversations} = await get("/conversations", {tag, limit: PAGE, before}, {signal: page.signal});
    more = conversations.length === PAGE;
    rows = before ? [...rows, ...conversations] : conversations;
    draw();
  }

  function draw() {
    if (!rows.length) {
      return replace(list, tag ? empty("No conversation has that tag", "A tag is a word like #release in what was said.", button("All conversations", () => change("")))
        : empty("Nothing has been said yet", "Whatever is said or done in the lab is a message in a conversation. Write to a MAD below, or ask from a terminal:", "madlab ask \"what can you do?\""));
    }
    replace(list, table(COLUMNS, rows, {label: "Conversations", rowId: (each) => each.id, rowHref: (each) => talkHref(each.id)}),
      h("div", {class: "pager"}, h("span", null, `${rows.length} shown`), more && actButton("Older", () => load(rows.at(-1).last), {kind: "small"})));
  }

  function change(to) {
    tag = to.trim().replace(/^#/, "").toLowerCase();
    page.setQuery({tag});
    return load();
  }

  await load();
  const speak = await speakBox({page, said: (answer) => page.go(talkHref(answer.conversation))});
  const find = h("form", {class: "filters", role: "search", "aria-label": "Find conversations", onsubmit: (event) => {
    event.preventDefault();
    const words = find.querySelector("input").value.trim();
    if (words) page.go(`/search?kind=message&q=${encodeURIComponent(words)}`);
  }}, h("label", {class: "field grow"}, h("span", null, "Search what was said"), h("input", {type: "search", autocomplete: "off", placeholder: "words, then Enter"})),
    search("Tag", tag ? `#${tag}` : "", change, {placeholder: "#release", maxlength: "41"}));
  const node = h("div", null, head("Conversations", {note: "Everything said in the lab, by people and by MADs, is in one of these."}), find,
    h("div", {class: "stack"}, h("div", {class: "card"}, list), card("Begin one", {}, speak.node)));
  // A run that changes has been spoken of: that is enough to look again, and not more often than a person reads.
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => rows.length <= PAGE && load().catch((error) => page.signal.aborted || console.warn(error)), LATER_MS);
  };
  return {title: "Conversations", node, topics: ["runs"], update: later, refresh: later, leave: () => clearTimeout(timer)};
}
