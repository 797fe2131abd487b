// The door, from the page: JSON in, JSON out, with the token of this browser. Nothing here knows what is asked.
//
//   get("/runs", {limit: 50})   post("/runs/ID/cancel")   put(path, body)   download("/blobs/DIGEST", "report.json")
//
// Each throws ApiError {code, message, next, status}; `status` 0 and code "UNAVAILABLE" mean that nobody answered.

const BASE = "/api/v1";
const TOKEN = "madlab-token";
const WAIT_MS = 30_000;
const AWAY_MS = 5_000; // while the core is away, whose port takes what is asked and leaves it for the next core
const LEASE = "madlab-lease-seconds";
let patience = WAIT_MS;
let lease = Infinity;

export class ApiError extends Error {
  constructor(status, {code, message, next}) {
    super(message);
    Object.assign(this, {name: "ApiError", status, code, next: next ?? ""});
  }
}

export const token = () => localStorage.getItem(TOKEN);
/** For how long, in seconds, the lab keeps this address while its core is away. */
export const kept = () => lease;
export const forget = () => localStorage.removeItem(TOKEN);

/** Trades the ticket of an address `/#ticket=…` for a token. The address is clean before anything is sent. */
export async function redeem() {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (!ticket) return;
  history.replaceState(history.state, "", location.pathname + location.search);
  const {token: fresh} = await post("/sessions", {ticket});
  localStorage.setItem(TOKEN, fresh);
}

export const get = (path, params, options) => asJson(path, {params, ...options});
export const post = (path, body = {}, options) => asJson(path, {method: "POST", body, ...options});
export const put = (path, body = {}, options) => asJson(path, {method: "PUT", body, ...options});

/** Fetches and saves under `name`, as the browser saves files; what it holds is never opened here. */
export async function download(path, name) {
  const answer = await ask(path, {wait: 600_000});
  const address = URL.createObjectURL(new Blob([await answer.arrayBuffer()], {type: "application/octet-stream"}));
  const link = Object.assign(document.createElement("a"), {href: address, download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

async function asJson(path, options) {
  const answer = await ask(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** Says whether the core is away: then nobody is waited for as long. */
export const away = (is) => (patience = is ? AWAY_MS : WAIT_MS);

/** What `promise` brings, if it does so before patience ends. */
export function soon(promise) {
  return Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error("It takes too long.")), patience))]);
}

/** The answer to one request, when it is a good one. */
export async function ask(path, {method = "GET", params, body, headers, signal, wait = patience} = {}) {
  const query = new URLSearchParams(Object.entries(params ?? {}).filter(([, value]) => value !== "" && value != null));
  const signals = [signal, wait ? AbortSignal.timeout(wait) : null].filter(Boolean);
  const sent = {method, headers: {accept: "application/json", ...headers}, cache: "no-store", credentials: "omit"};
  if (token()) sent.headers.authorization = `Bearer ${token()}`;
  if (body !== undefined) {
    sent.body = JSON.stringify(body);
    sent.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(BASE + path + (query.size ? `?${query}` : ""), {...sent, signal: AbortSignal.any(signals)});
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, {code: "UNAVAILABLE", message: "The lab does not answer.", next: "See: madlab status"});
  }
  lease = Number(answer.headers.get(LEASE)) || lease;
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const unknown = {code: "INTERNAL", message: `The lab answered ${answer.status}.`, next: "See core.log"};
  if (answer.status === 401) dispatchEvent(new Event("madlab:signed-out"));
  throw new ApiError(answer.status, told.error ?? unknown);
}
