// The same MAD as tests/emads/echo, in another language: says back what it is told, and misbehaves on request.

import { openSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import { host } from "./madlab.mjs";

const MISDEEDS = {
  raise() {
    throw new Error("on request");
  },
  hang: () => new Promise(() => {}),
  block: () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600_000),
  fill() {
    const file = openSync(join(tmpdir(), "full"), "w");
    for (;;) writeSync(file, new Uint8Array(1024 * 1024));
  },
  exit: () => process.exit(7),
};

await host({
  async say({ text }) {
    return { text };
  },

  async say_later({ text, after_s }, message, ctx) {
    for (let step = 1; step <= after_s * 10; step++) {
      await setTimeout(100);
      await ctx.progress(message, `waited ${step} tenths`, { tenths: step });
    }
    return { text };
  },

  async repeat({ text, times }) {
    return { text: text.repeat(times) };
  },

  async count_bytes({ source }, message, ctx) {
    let size = 0;
    for await (const chunk of ctx.get(source)) {
      size += chunk.length;
      await ctx.progress(message, `${size} bytes so far`, { bytes: size });
    }
    return { bytes: size };
  },

  async keep({ text }, message, ctx) {
    const blob = await ctx.put(Buffer.from(text), "kept.txt", "text/plain");
    ctx.verdict.artifacts.push(blob);
    ctx.verdict.evidence.kept = blob.size;
    return { text: blob.digest };
  },

  async misbehave({ how }) {
    await MISDEEDS[how]();
    return { text: "unreachable" };
  },
});
