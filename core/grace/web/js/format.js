// Numbers, times and foreign text as people read them.

const SECOND = 1000;
const clockOf = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
const dayOf = new Intl.DateTimeFormat(undefined, {day: "numeric", month: "short"});
const fullOf = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});
const counting = new Intl.NumberFormat("en");

/** How long ago, in words as short as they can be: "now", "40 s", "12 min", "3 h", "5 d". Times are epoch seconds. */
export function ago(at, now = Date.now() / SECOND) {
  const s = Math.max(0, now - at);
  if (s < 5) return "now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ago`;
  return s < 14 * 86_400 ? `${Math.floor(s / 86_400)} d ago` : dayOf.format(at * SECOND);
}

/** The time of day, with the day when that is not today. */
export function clock(at) {
  const then = new Date(at * SECOND);
  const time = clockOf.format(then);
  return then.toDateString() === new Date().toDateString() ? time : `${dayOf.format(then)} ${time}`;
}

export const full = (at) => fullOf.format(at * SECOND);

/** A duration in seconds. */
export function span(s) {
  if (s === null || s === undefined || !Number.isFinite(s)) return "–";
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** Dollars: two digits that say something, never more than are true. */
export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  if (usd === 0) return "$0";
  if (usd < 0.0001) return "< $0.0001";
  return `$${usd < 0.01 ? usd.toFixed(4) : usd < 100 ? usd.toFixed(2) : counting.format(Math.round(usd))}`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1024;
  }
}

export function tokens(n) {
  if (n === null || n === undefined) return "–";
  if (n < 10_000) return counting.format(n);
  return n < 1_000_000 ? `${(n / 1000).toFixed(n < 100_000 ? 1 : 0)} k` : `${(n / 1_000_000).toFixed(1)} M`;
}

/** "1 run", "3 runs". */
export const count = (n, one, many = `${one}s`) => `${counting.format(n)} ${n === 1 ? one : many}`;

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** Text that somebody else wrote: what would drive a terminal, hide, or turn the line around is shown by its number. */
export function shown(text, limit = 20_000) {
  const whole = String(text ?? "");
  const some = whole.length > limit ? `${whole.slice(0, limit)}… (${counting.format(whole.length - limit)} more)` : whole;
  return some.replaceAll("\r\n", "\n").replace(HIDDEN, visible);
}

function visible(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return code >= 0xfe00 && code <= 0xfe0f ? "" : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** A digest or an id, short. */
export const short = (text, keep = 12) => (text.length > keep + 1 ? `${text.slice(0, keep)}…` : text);

/** Text with the digests in it short: they are there to be compared, not to be read. */
export const undigested = (text) => text.replace(/\bsha256:([0-9a-f]{8})[0-9a-f]{56}\b/g, "sha256:$1…");

/** "timed_out" → "timed out". */
export const words = (name) => String(name ?? "").replaceAll("_", " ");
