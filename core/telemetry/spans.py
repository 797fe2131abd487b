"""The journal is the trace: what of its entries is a span, and where it hangs.

    request ─▶ message (a call, or prose) ─▶ run ─▶ call of a tool ─▶ run ─▶ …
       │            │                         ├─▶ request to a model
       │            └─▶ of a resident: its    ├─▶ request to the web, with the secrets it used
       │                acts and calls        ├─▶ file put or got, wait for a person, denial
       │                                      └─▶ what a run told of its steps: commands, tests
       └─ the caller's trace, by `traceparent`

A span is told when it has ended, by the entry that ended it, and is a function of the journal alone: the same entry
makes the same span, under the same ids, whenever it is read. Nothing is kept in between, and nothing in the lab waits
for it. The trace's id is the id of the message by which somebody asked (16 bytes, as a trace's); a span's id is made of
the id of what it stands for.

What is told: names of MADs, tools, models and rules, ids, times, sizes, counts, codes, and the host of a request as far
as the rule that allowed it names it; of any other a digest, for a worker can write words into a name. Never told: what
was said, arguments, prompts, answers, reasons, paths and queries, names of files and of secrets, digests of contents.
What a worker may choose freely is told as one of a few known words, or as "other".
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from core.fiedler.money import dollars
from core.lives import GREEN
from core.policy.targets import named
from core.rogers.entry import Row
from core.rogers.subscription import to_message
from core.run import Run
from core.telemetry.otlp import Link, Moment, Span, SpanKind, Value
from core.telemetry.past import Past, Place, span_id
from core.telemetry.traced import KIND as TRACE
from core.telemetry.traced import Traced
from protos.errors import BY_CODE
from protos.ids import is_uuid
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_PROSE, Message

# What ends a span, in SQL: answers to messages, ends of runs and acts, answers of people, verdicts on dead letters.
ENDS = f"""(j.kind IN ('approval', 'dead', '{TRACE}') OR (j.kind = 'message' AND j.id LIKE '%.reply')
    OR (j.kind = 'run' AND j.id LIKE '%:destroyed:%') OR (j.kind = 'act' AND j.id NOT LIKE '%:started'))"""
STEPS = 200  # of one run that become spans; the rest is counted
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
TOLD_STEPS = frozenset({"command", "tests"})  # what a run tells of its steps and took time for
OTHER = "other"
CODES = frozenset({each.lower() for each in BY_CODE}) | {"unknown_tool", "no_thought_engine", "deadline_exceeded"}
CODES |= {"internal", "no_answer", "unavailable", "succeeded", "partial", "failed", "cancelled", "timed_out"}
CODES |= {"out_of_budget", "out_of_memory", "out_of_disk", "stuck", "lost", "killed"}
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")


@dataclass
class Spans:
    """Makes spans of entries. `lab` seasons the digests that stand for names; `hosts_of` are the patterns that a rule
    has for hosts."""

    past: Past
    lab: str
    hosts_of: Callable[[str], Sequence[str]]

    async def of(self, row: Row) -> Sequence[Span]:
        """The spans that ended with this entry; none with most."""
        match row.kind:
            case "message":
                return await self._answered(row)
            case "run":
                return await self._run_ended(row) if ":destroyed:" in row.id else ()
            case "act":
                return await self._act(row)
            case "approval":
                return await self._approval(row)
            case "dead":
                told = json.loads(row.body or b"{}")
                return await self._asked(str(told.get("id", "")), row.at, failure="dead_letter")
        return await self._came_in(row) if row.kind == TRACE else ()

    # --- what was asked

    async def _came_in(self, row: Row) -> Sequence[Span]:
        """The request at the door: until what it said was durable. How long the answer took is the message's span."""
        message, traced = row.id.removeprefix("trace:"), Traced.of(json.loads(row.body or b"{}"))
        place = await self.past.place_of_message(message)
        about: dict[str, Value] = {"http.request.method": "POST", "http.route": traced.route}
        about["http.response.status_code"] = 202
        return [
            Span(
                place.trace,
                span_id("request", message),
                traced.parent,
                f"POST {traced.route}",
                traced.at,
                row.at,
                SpanKind.SERVER,
                about,
                links=[Link(*traced.linked)] if traced.linked else (),
                is_remote=bool(traced.parent),
            )
        ]

    async def _answered(self, row: Row) -> Sequence[Span]:
        answer = to_message(row)
        failure = ""
        if answer.kind == KIND_FAULT:
            failure = _known(_parsed(answer.data.encode()).get("code"))
        return await self._asked(answer.in_reply_to or row.id.removesuffix(".reply"), row.at, failure=failure)

    async def _asked(self, id: str, until: float, *, failure: str = "") -> Sequence[Span]:
        """The span of a message that asked for something, from when it was said to its answer."""
        asked = await self.past.message(id)
        if asked is None or asked.kind not in (KIND_CALL, KIND_PROSE):
            return ()
        place = await self.past.place_of_message(id)
        about = self._talk(asked) | {"madlab.message.id": id, "madlab.sender": asked.sender}
        if asked.kind == KIND_CALL:
            name, tool = "execute_tool", f"{asked.recipient}.{asked.tool}"
            about |= {"gen_ai.operation.name": name, "gen_ai.tool.name": tool, "gen_ai.tool.call.id": id}
        else:
            name, tool = "invoke_agent", asked.recipient
            about |= {"gen_ai.operation.name": name, "gen_ai.agent.name": tool}
        if failure:
            about["error.type"] = failure
        parent = place.parent
        return [
            Span(
                place.trace, span_id("message", id), parent, f"{name} {tool}", asked.at, until, attributes=about,
                failed=bool(failure),
            )
        ]  # fmt: skip

    def _talk(self, asked: Message) -> dict[str, Value]:
        """The conversation, where its name is an id and no words of a person."""
        first, _, rest = asked.conversation.partition("/")
        is_id = is_uuid(first) and re.fullmatch("[0-9a-z./]*", rest) is not None
        return {"gen_ai.conversation.id": asked.conversation if is_id else self._digest(asked.conversation)}

    # --- runs

    async def _run_ended(self, row: Row) -> Sequence[Span]:
        run = await self.past.run(str(_parsed(row.body).get("id", "")))
        if run is None:
            return ()
        place = await self.past.place_of_run(run)
        about: dict[str, Value] = {"gen_ai.agent.name": run.mad, "madlab.run.id": run.id}
        about["madlab.run.outcome"] = str(run.outcome)
        for name, key in (("cpu_s", "madlab.run.cpu_s"), ("memory_bytes", "madlab.run.memory_bytes")):
            if isinstance(run.cost.get(name), int | float):
                about[key] = run.cost[name]
        if isinstance(run.cost.get("tokens"), int) and isinstance(run.cost.get("usd"), int | float):
            about |= {"madlab.run.tokens": run.cost["tokens"], "madlab.run.usd": float(run.cost["usd"])}
        failed = run.outcome not in GREEN
        if failed:
            about["error.type"] = str(run.outcome)
        states = await self.past.states(run.id)
        moments = [Moment(f"madlab.run.{state}", at) for state, at in states if state != "requested"]
        steps, dropped = await self._steps(run, place)
        spans = [
            Span(
                place.trace, span_id("run", run.id), place.parent, f"run {run.mad}", run.created, row.at,
                attributes=about, moments=moments, dropped_moments=dropped, failed=failed,
            ),
            *steps,
        ]  # fmt: skip
        if await self.past.row(f"{run.trigger}.reply") is None:  # prose that nobody owed an answer to
            spans += await self._asked(run.trigger, row.at)
        return spans

    async def _steps(self, run: Run, place: Place) -> tuple[list[Span], int]:
        """What the run itself told of the steps it took in its sandbox; and how many were left out."""
        steps: list[Span] = []
        dropped = 0
        for event in await self.past.events(run, limit=50 * STEPS):
            told = _parsed(event.data.encode()) if event.tool == "progress" else {}
            what, code = told.get("what"), told.get("exit_code")
            if what not in TOLD_STEPS or (what == "command" and not isinstance(code, int)):
                continue
            if len(steps) == STEPS:
                dropped += 1
                continue
            seconds = told.get("seconds")
            took = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 0.0
            start = max(event.at - took, run.started or run.created)
            about: dict[str, Value] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": f"{what}"}
            failed = what == "tests" and told.get("passed") is False
            if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 1 << 31:
                about["process.exit.code"] = code
                failed = failed or code != 0
            steps.append(
                Span(
                    place.trace, span_id("event", event.id), span_id("run", run.id), f"execute_tool {what}", start,
                    event.at, attributes=about, failed=failed,
                )
            )  # fmt: skip
        return steps, dropped

    # --- acts

    async def _act(self, row: Row) -> Sequence[Span]:
        told = _parsed(row.body)
        kind, step, id = str(told.get("act", "")), told.get("step"), row.id.rpartition(":")[0]
        if row.id.startswith("act:llm:"):
            return await self._model(row, told) if step == "outcome" else ()
        if step == "denied":
            about: dict[str, Value] = {"madlab.act": kind, "madlab.rule": _rule(told.get("rule"))}
            about["error.type"] = "permission_denied"
            return [await self._within(row, id, f"denied {kind}", row.at, row.at, about, failed=True)]
        if step != "outcome" or (began := await self.past.fields(f"{id}:started")) is None:
            return ()
        at, intent = began
        about = {"madlab.rule": _rule(intent.get("rule"))}
        if told.get("failed"):
            about["error.type"] = _known(told["failed"])
        if kind == "web.fetch":
            return [await self._fetched(row, id, at, intent, told, about)]
        if isinstance(told.get("size"), int):
            about["madlab.size"] = told["size"]
        return [await self._within(row, id, kind, at, row.at, about, failed="error.type" in about)]

    async def _fetched(
        self, row: Row, id: str, at: float, intent: dict[str, Any], told: dict[str, Any], about: dict[str, Value]
    ) -> Span:
        details = intent.get("details") or {}
        method = details.get("method") if details.get("method") in METHODS else "_OTHER"
        address = urlsplit(str(intent.get("target", "")))
        about |= {"http.request.method": str(method), "url.scheme": address.scheme}
        host = address.hostname or ""
        known = named(host, self.hosts_of(str(intent.get("rule"))))
        about |= {"server.address": known or self._digest(host), "server.port": address.port or _port(address.scheme)}
        status = told.get("status")
        if isinstance(status, int):
            about["http.response.status_code"] = status
            if status >= 400:
                about.setdefault("error.type", str(status))
        for name, key in (("bytes_sent", "madlab.bytes_sent"), ("bytes_received", "madlab.bytes_received")):
            if isinstance(told.get(name), int):
                about[key] = told[name]
        secrets = [each for each in str(details.get("secrets", "")).split(",") if each]
        used = [Moment("madlab.secret.used", at, {"madlab.secret.digest": self._digest(each)}) for each in secrets]
        return await self._within(
            row, id, str(method), at, row.at, about, kind=SpanKind.CLIENT, moments=used, failed="error.type" in about
        )

    async def _model(self, row: Row, told: dict[str, Any]) -> Sequence[Span]:
        call = await self.past.call(str(told.get("attempt", "")))
        if call is None:
            return ()
        operation = "embeddings" if call["act"] == "llm.embed" else "chat"
        about: dict[str, Value] = {"gen_ai.operation.name": operation, "gen_ai.request.model": call["model"]}
        about |= {"gen_ai.system": call["provider"], "gen_ai.provider.name": call["provider"]}
        about |= {"gen_ai.usage.input_tokens": call["input"], "gen_ai.usage.output_tokens": call["output"]}
        about |= {"gen_ai.usage.cache_read.input_tokens": call["cached"], "madlab.llm.alias": call["alias"]}
        about |= {"madlab.llm.attempt": call["number"], "madlab.llm.usd": dollars(call["usd"])}
        if call["assumed"]:
            about["madlab.llm.usage_assumed"] = True
        failed = call["outcome"] != "finished"
        if failed:
            about["error.type"] = _known(call["outcome"])
        moments = [Moment("gen_ai.first_output", call["first"])] if call["first"] else []
        span = await self._within(
            row, row.id.rpartition(":")[0], f"{operation} {call['model']}", call["at"], row.at, about,
            kind=SpanKind.CLIENT, moments=moments, failed=failed, request=call["request"],
        )  # fmt: skip
        return [span]

    async def _approval(self, row: Row) -> Sequence[Span]:
        """How long an act waited for a person."""
        told = _parsed(row.body)
        if told.get("step") not in ("approved", "denied"):
            return ()
        asked = await self.past.row(f"approval:{told.get('approval')}:asked")
        if asked is None:
            return ()
        about: dict[str, Value] = {"madlab.approval.answer": str(told["step"])}
        about["madlab.rule"] = _rule(_parsed(asked.body).get("rule"))
        return [
            await self._within(
                asked, row.id.rpartition(":")[0], "wait for approval", asked.at, row.at, about,
                failed=told["step"] == "denied",
            )
        ]  # fmt: skip

    async def _within(
        self, row: Row, id: str, name: str, start: float, end: float, about: dict[str, Value], *,
        kind: SpanKind = SpanKind.INTERNAL, moments: Sequence[Moment] = (), failed: bool = False, request: str = "",
    ) -> Span:  # fmt: skip
        """A span of what the sender of an entry did, where it was at work."""
        place = await self.past.place_of_act(row.sender, request, row.sequence)
        if place is None:
            place = Place.root(request if is_uuid(request) else id.rpartition(":")[2])
        return Span(
            place.trace, span_id("act", id), place.parent, name, start, end, kind, about, moments, failed=failed
        )

    def _digest(self, name: str) -> str:
        """What stands for a name: the same in this lab, and told to nobody."""
        return sha256(f"{self.lab}\0{name}".encode()).hexdigest()[:16]


def _parsed(body: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _known(code: object) -> str:
    """A code that the lab itself has, or "other": a worker may write anything there."""
    code = str(code).lower()
    return code if code in CODES else OTHER


def _rule(name: object) -> str:
    """The name of a rule, which the operator chose."""
    return name if isinstance(name, str) and WORD.fullmatch(name) else OTHER


def _port(scheme: str) -> int:
    return 80 if scheme == "http" else 443
