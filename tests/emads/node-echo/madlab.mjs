// The worker's side of the contract in Node, written from protos/v1/*.proto and protos/README.md alone.
//
// `host(tools)` reads the one-use token, dials the core, attaches, waits for its assignment, serves, and reports how it
// ended. It exits with 0 when it was done or told to end, 3 when the core did not answer for a whole lease, 4 when the
// session was refused.
//
// When the core goes away, every call is made again until a lease has passed: publishing is idempotent by id, a
// subscription goes on behind the last message that was seen, a download at its offset, an upload from its start.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

export const BODY_BYTES = 16 * 1024; // of text and data together; what is larger travels as a blob
export const CHUNK_BYTES = 256 * 1024;
const MESSAGE_BYTES = 1024 * 1024;
const PREVIEW_CHARACTERS = 400;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 1000;
const { UNAVAILABLE, CANCELLED } = grpc.status;

const PROTOS = process.env.MADLAB_PROTOS ?? fileURLToPath(new URL("../../..", import.meta.url));
const { madlab } = grpc.loadPackageDefinition(
  loadSync(["session", "bus", "files"].map((name) => `protos/v1/${name}.proto`), {
    includeDirs: [PROTOS],
    keepCase: true,
    longs: Number, // sequences and sizes stay far below 2^53
    enums: String,
    defaults: true,
    oneofs: true,
  }),
);
const { Session, Bus, Files } = madlab.v1;

/** What went wrong, told by a code of the contract; becomes a fault. */
export class Fault extends Error {
  constructor(code, message, next = "") {
    super(message);
    this.code = code;
    this.next = next;
  }
}

/** An error of gRPC as a fault. Only the code counts; the text is data. */
function translated(error) {
  const next = error.metadata?.get("madlab-next-bin")?.map((each) => each.toString()).join("") ?? "";
  return new Fault(Object.entries(grpc.status).find(([, code]) => code === error.code)?.[0] ?? "UNKNOWN", error.details, next);
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const now = () => performance.now() / 1000;
const away = (error) => error.code === UNAVAILABLE || error.code === CANCELLED;

/** A UUIDv7. */
export function newId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** One worker's session with the core. */
class Joined {
  constructor(address, token) {
    const options = {
      "grpc.max_receive_message_length": MESSAGE_BYTES,
      "grpc.max_send_message_length": MESSAGE_BYTES,
      "grpc.initial_reconnect_backoff_ms": FIRST_RETRY_MS,
      "grpc.max_reconnect_backoff_ms": LAST_RETRY_MS,
      "grpc.enable_http_proxy": 0,
    };
    const credentials = grpc.credentials.createInsecure();
    [this.session, this.bus, this.files] = [Session, Bus, Files].map((Service) => new Service(address, credentials, options));
    this.token = token;
    this.credential = "";
    this.leaseS = 60;
    this.heard = now();
    this.finished = false;
    this.assigned = new Promise((resolve) => (this.assign = resolve));
    this.attached = new Promise((resolve) => (this.attach = resolve));
  }

  /** What proves the session with every call. */
  get metadata() {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${this.credential}`);
    return metadata;
  }

  /** Makes a call again and again while the core is away, for one lease at most. */
  async insist(make) {
    const began = now();
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      try {
        return await make();
      } catch (error) {
        if (!away(error) || now() - began > this.leaseS) throw error instanceof Fault ? error : translated(error);
        await pause(wait);
      }
    }
  }

  /** One unary call. */
  call(client, method, request) {
    return this.insist(
      () =>
        new Promise((resolve, reject) => {
          client[method](request, this.metadata, (error, answer) => {
            if (error) return reject(error);
            this.heard = now();
            resolve(answer);
          });
        }),
    );
  }

  /** Follows the core's directives, attaching again whenever the stream breaks. Returns the reason of the end. */
  async listen() {
    for (let wait = FIRST_RETRY_MS; !this.finished; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      const proof = this.credential ? { credential: this.credential } : { token: this.token };
      try {
        for await (const directive of this.session.Attach({ host: `node-echo/1 node/${process.version}`, ...proof })) {
          wait = FIRST_RETRY_MS;
          this.heard = now();
          if (directive.kind === "attached") {
            this.credential ||= directive.attached.credential;
            this.leaseS = directive.attached.lease_s || this.leaseS;
            this.attach();
          } else if (directive.kind === "assignment") {
            this.assign(directive.assignment);
          } else if (directive.kind === "end") {
            return directive.end.reason;
          }
        }
      } catch (error) {
        if (!away(error)) throw translated(error);
      }
      await pause(wait);
    }
    return new Promise(() => {}); // finishing says how it ends
  }

  /** Keeps the lease; returns when nothing has answered for the whole of it. */
  async beat() {
    await Promise.race([this.attached, pause(this.leaseS * 1000)]);
    while (now() - this.heard <= this.leaseS) {
      await pause((this.leaseS / 4) * 1000);
      await new Promise((resolve) => {
        const deadline = Date.now() + (this.leaseS / 4) * 1000;
        this.session.Heartbeat({}, this.metadata, { deadline }, (error) => {
          if (!error) this.heard = now();
          resolve(); // an error is silence, and silence is counted
        });
      });
    }
  }

  /** What is addressed to this participant, each message once, also when the core was away in between. */
  async *messages() {
    let last = 0;
    for (;;) {
      try {
        for await (const { messages } of this.bus.Subscribe({}, this.metadata)) {
          for (const message of messages) {
            if (message.sequence && message.sequence <= last) continue;
            last = Math.max(last, message.sequence);
            yield message;
          }
        }
        return;
      } catch (error) {
        if (!away(error)) throw translated(error);
        await pause(FIRST_RETRY_MS);
      }
    }
  }
}

/** The ports, as a tool sees them. */
class Context {
  constructor(joined, assignment) {
    this.joined = joined;
    this.assignment = assignment;
    this.verdict = { outcome: "OUTCOME_SUCCEEDED", reason: "", evidence: {}, artifacts: [] };
    this.reports = null;
  }

  /** Makes a message durable and delivers it; the same id again is the same message. */
  async publish(message) {
    await this.settleReports();
    return (await this.joined.call(this.joined.bus, "Publish", { message })).sequence;
  }

  /** Tells people how far the work is. May be lost while the core is away; what is said or called is not. */
  async progress(question, text, fields = {}) {
    if (!this.reports) {
      const settled = new Promise((resolve) => {
        this.reports = this.joined.bus.Report(this.joined.metadata, () => resolve());
      });
      this.reports.on("error", () => {});
      this.reports.settled = settled;
    }
    const event = {
      id: newId(),
      conversation: question.conversation,
      kind: "KIND_EVENT",
      tool: "progress",
      causation: question.id,
      text,
      data: JSON.stringify(fields),
    };
    const { reports } = this;
    if (!reports.write({ events: [event] })) await Promise.race([once(reports, "drain"), reports.settled]).catch(() => {});
  }

  /** So that what was reported before a message is seen before it. */
  async settleReports() {
    const { reports } = this;
    this.reports = null;
    if (reports) {
      reports.end();
      await reports.settled;
    }
  }

  /** Streams a blob. */
  async *get(digest) {
    let offset = 0;
    const began = now();
    for (;;) {
      try {
        for await (const { bytes } of this.joined.files.Get({ digest, offset }, this.joined.metadata)) {
          offset += bytes.length;
          yield bytes;
        }
        return;
      } catch (error) {
        if (!away(error) || now() - began > this.joined.leaseS) throw translated(error);
        await pause(FIRST_RETRY_MS);
      }
    }
  }

  /** Stores bytes and returns the blob. */
  put(bytes, name, mediaType) {
    return this.joined.insist(
      () =>
        new Promise((resolve, reject) => {
          const call = this.joined.files.Put(this.joined.metadata, (error, blob) => (error ? reject(error) : resolve(blob)));
          call.on("error", () => {});
          call.write({ about: { name, media_type: mediaType }, more: bytes.length > 0 });
          for (let start = 0; start < bytes.length; start += CHUNK_BYTES) {
            const end = start + CHUNK_BYTES;
            call.write({ bytes: bytes.subarray(start, end), more: end < bytes.length });
          }
          call.end();
        }),
    );
  }
}

/** Answers one message. Whatever a tool throws becomes a fault. */
async function handle(tools, message, ctx) {
  try {
    await within(message.deadline, dispatch(tools, message, ctx));
  } catch (error) {
    const fault = error instanceof Fault ? error : new Fault("INTERNAL", `The tool failed: ${error.name}: ${error.message}`);
    await fail(ctx, message, fault.code.toLowerCase(), fault.message.slice(0, 2000), fault.next);
  }
}

/** A promise, but not for longer than until `deadline` (seconds since the epoch; 0: for ever). */
async function within(deadline, work) {
  if (!deadline) return work;
  let timer;
  const late = new Promise((_, reject) => {
    const sentence = "The deadline passed before there was an answer.";
    timer = setTimeout(() => reject(new Fault("DEADLINE_EXCEEDED", sentence)), Math.max(0, deadline * 1000 - Date.now()));
  });
  work.catch(() => {}); // late, and nobody listens any more
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

async function dispatch(tools, message, ctx) {
  if (message.kind === "KIND_CALL" && Object.hasOwn(tools, message.tool)) {
    const result = await tools[message.tool](JSON.parse(message.data || "{}"), message, ctx);
    await answer(ctx, message, "KIND_REPLY", result);
  } else if (message.kind === "KIND_CALL") {
    await fail(ctx, message, "unknown_tool", `This MAD has no tool '${message.tool}'.`, callOne(tools));
  } else if (message.kind === "KIND_PROSE") {
    await fail(ctx, message, "no_thought_engine", "This MAD has no Thought Engine that reads prose.", callOne(tools));
  }
}

const callOne = (tools) => `Call one of its tools: ${Object.keys(tools).sort().join(", ")}.`;

async function fail(ctx, message, code, sentence, next) {
  if (message.id === ctx.assignment.trigger) Object.assign(ctx.verdict, { outcome: "OUTCOME_FAILED", reason: sentence });
  if (["KIND_CALL", "KIND_PROSE"].includes(message.kind)) {
    await answer(ctx, message, "KIND_FAULT", { code, message: sentence, next }, sentence);
  }
}

/** Publishes the one answer to a message: its id is made of the question's, so a second answer is the same message. */
async function answer(ctx, question, kind, data, text = "") {
  const body = JSON.stringify(data);
  const reply = {
    id: `${question.id}.reply`,
    conversation: question.conversation,
    recipient: question.sender,
    kind,
    in_reply_to: question.id,
    causation: question.id,
    hops: question.hops + 1,
    tool: question.tool,
    text,
    data: body,
    blobs: question.id === ctx.assignment.trigger ? [...ctx.verdict.artifacts] : [],
  };
  if (Buffer.byteLength(body) + Buffer.byteLength(text) > BODY_BYTES) {
    reply.blobs.push(await ctx.put(Buffer.from(body), "result.json", "application/json"));
    reply.data = "";
    reply.text = (text || body).slice(0, PREVIEW_CHARACTERS);
  }
  await ctx.publish(reply);
}

/** Handles messages until the inbox ends or, where the assignment names a trigger, until that message is handled. */
async function serve(tools, joined) {
  const assignment = await joined.assigned;
  const ctx = new Context(joined, assignment);
  for await (const message of joined.messages()) {
    await handle(tools, message, ctx);
    await joined.call(joined.bus, "Acknowledge", { sequence: message.sequence });
    if (message.id === assignment.trigger) break;
  }
  await ctx.settleReports();
  if (assignment.run) {
    joined.finished = true; // whatever the core says from here on, the work is done
    const { evidence, ...verdict } = ctx.verdict;
    await joined.call(joined.session, "Finish", { ...verdict, evidence: JSON.stringify(evidence) });
  }
}

/** The first line of standard input. Its end means nothing. */
async function readToken() {
  let read = "";
  for await (const chunk of process.stdin) {
    read += chunk;
    if (read.includes("\n") || read.length > 4096) break;
  }
  return read.split("\n")[0].trim();
}

/** Serves `tools` ({name: async (arguments, message, ctx) => result}) for one session, then ends the process. */
export async function host(tools) {
  const joined = new Joined(`unix:${process.env.MADLAB_DOOR ?? "/run/madlab"}/gate.sock`, await readToken());
  try {
    const code = await Promise.race([
      joined.listen().then(() => 0),
      joined.beat().then(() => 3),
      serve(tools, joined).then(() => 0),
    ]);
    process.exit(code);
  } catch (error) {
    console.error("the session ended:", error.message);
    process.exit(error.code === "UNAVAILABLE" ? 3 : 4);
  }
}

