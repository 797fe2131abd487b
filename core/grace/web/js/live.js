// One stream of events for the whole page: whoever wants to hear of something says which topics, and until when.
//
// The stream is `GET /events?topics=…`, read by fetch because EventSource can carry no token. Rules of the file:
//   1. There is one stream. It is opened again when what is wanted changes; for a moment it may tell something twice, so
//      each follower remembers how far it is and is told nothing a second time. Until the stream is one that was opened
//      for all a follower wants, the follower hears nothing of it: it would take what it is told for all there was.
//   2. Whoever loads something and then follows it takes a mark() first: the stream goes back to the mark, so nothing
//      falls between the two.
//   3. A stream that breaks, or says nothing for two heartbeats, is opened again after a pause that grows, from the last
//      id it saw: the core sends what was missed.
//   4. A page nobody looks at needs no stream: it is closed after a while, and catches up when it is looked at.
//   5. A break that is longer than the lease is the end of this address, unless the settings name its port or the
//      connection alone was cut: so it is still asked for, and a person is told what to type.
//   6. After a break the handlers get {name: "back"}: whatever is not in the events (a list's order, a total) may be stale.

import {ask, away, kept} from "./api.js";

const SILENCE_MS = 25_000; // the core says something every 10 s
const LONGEST_MS = 8_000; // between two attempts
const UNSEEN_MS = 60_000; // a page that is not looked at keeps its stream this long

const followers = new Set();
const listeners = new Set();
let state = "connecting";
let last = 0; // the highest id there was; 0 before the first stream said where it begins
let opened = null; // resolved when `last` is known
const known = new Promise((resolve) => (opened = resolve));
let open = null; // {topics, abort}
let failures = 0;
let retry = 0;
let soon = 0;
let hidden = 0;
let paused = false;
let broken = false;
let brokenAt = 0;

/** Where the stream stands, to be taken before something is loaded that is followed then. */
export async function mark() {
  if (!last) await Promise.race([known, new Promise((resolve) => setTimeout(resolve, 2_000))]);
  return last;
}

/** Hears of `topics` until the returned function is called. `handler({name, data, id})`; `since` is a mark. */
export function follow(topics, handler, since = 0) {
  const follower = {topics: new Set(topics), handler, last: since || last};
  followers.add(follower);
  schedule();
  return () => {
    followers.delete(follower);
    schedule();
  };
}

/** Calls `listener(state)` now and on each change: "connecting", "live", "reconnecting", "gone", "caught-up", "paused". */
export function watch(listener) {
  listeners.add(listener);
  listener(state);
  return () => listeners.delete(listener);
}

/** Ends the stream, for a page that has no token any more. */
export function stop() {
  followers.clear();
  shut();
  become("connecting");
}

function wanted() {
  return [...new Set([...followers].flatMap((each) => [...each.topics]))].sort();
}

// A view that goes and one that comes change the topics in one go: the stream is opened once for both.
function schedule() {
  clearTimeout(soon);
  soon = setTimeout(() => {
    const topics = wanted();
    if (paused) return;
    if (!topics.length) return shut();
    if (open && topics.join() === open.topics.join()) return;
    if (!open && retry) return; // the next attempt asks for them, too
    connect();
  }, 20);
}

function shut() {
  clearTimeout(retry);
  retry = 0;
  open?.abort.abort();
  open = null;
}

async function connect() {
  shut();
  const mine = {topics: wanted(), abort: new AbortController()};
  if (!mine.topics.length) return;
  open = mine;
  let silence = 0;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => mine.abort.abort(), SILENCE_MS);
  };
  try {
    heard();
    const from = Math.min(...[...followers].map((each) => each.last));
    const headers = {accept: "text/event-stream", ...(from ? {"last-event-id": String(from)} : {})};
    const params = {topics: mine.topics.join(",")};
    const answer = await ask("/events", {params, headers, signal: mine.abort.signal, wait: 0});
    arrived();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done || open !== mine) break;
      heard();
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const each of blocks) hand(parsed(each), mine.topics, from);
    }
  } catch (error) {
    if (error.status === 401) return;
  } finally {
    clearTimeout(silence);
  }
  if (open === mine) again();
}

function arrived() {
  failures = brokenAt = 0;
  const wasBroken = broken;
  broken = false;
  become(wasBroken ? "caught-up" : "live");
  if (!wasBroken) return;
  setTimeout(() => state === "caught-up" && become("live"), 4000);
  tell({name: "back", data: null, id: 0});
}

function again() {
  open = null;
  broken = true;
  brokenAt ||= Date.now();
  become(Date.now() - brokenAt < kept() * 1000 ? "reconnecting" : "gone");
  const pause = Math.min(LONGEST_MS, 250 * 2 ** failures++);
  retry = setTimeout(connect, pause * (0.75 + Math.random() / 2));
}

/** Hands on what came by a stream that was opened for `topics` and asked to begin at `from`. */
function hand(event, topics, from) {
  if (!event || event.name === "end") return;
  if (event.name === "open") return begins(event.id, from);
  last = Math.max(last, event.id);
  tell(event, [...followers].filter((each) => [...each.topics].every((topic) => topics.includes(topic))));
}

function tell(event, whom = [...followers]) {
  for (const each of whom) {
    if (event.id && event.id <= each.last) continue;
    if (event.id) each.last = event.id;
    try {
      each.handler(event);
    } catch (error) {
      console.error(error);
    }
  }
}

/** The stream begins at `id`: where it was asked to, or, when that lies beyond its end, in a journal that is another. */
function begins(id, from) {
  const isAnother = id < from;
  if (isAnother) last = 0;
  last ||= id;
  for (const each of followers) each.last = isAnother ? id : each.last || id;
  opened();
  if (isAnother) tell({name: "back", data: null, id: 0});
}

/** One block of the stream; null for a heartbeat. */
export function parsed(block) {
  const event = {name: "message", data: null, id: 0};
  const data = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1 && line !== "data") continue;
    const field = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event.name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") event.id = Number(value);
  }
  if (!data.length && event.name !== "end") return null;
  event.data = data.length ? JSON.parse(data.join("\n")) : null;
  return event;
}

function become(next) {
  if (state === next) return;
  state = next;
  away(next === "reconnecting" || next === "gone");
  for (const each of listeners) each(state);
}

addEventListener("online", () => broken && connect());
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) {
    hidden = setTimeout(() => {
      paused = true;
      shut();
      become("paused");
    }, UNSEEN_MS);
  } else if (paused) {
    paused = false;
    broken = true;
    connect();
  } else if (broken && !open) {
    connect();
  }
});
