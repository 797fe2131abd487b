"""Calls, starts of runs and requests to models pass the same gate as every act, and are journalled once."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio import create_task_group, fail_after, sleep

from core.lab import Lab
from core.policy.approvals import Approval
from core.policy.capabilities import Identity
from core.policy.policy import Policy
from core.policy.rules import BUILT_IN, parse_policy, read_policy
from core.ports.context import context_for
from core.ports.services import unlimited
from protos.errors import Denied
from protos.ids import new_id
from protos.llm import prompt
from protos.mad import Context
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Blob, Message, Terms
from protos.v1.session_pb2 import Assignment
from tests.labs import ECHO, a_home, opened
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import KEY

LIMIT_S = 30
POLICY = """
[[rules]]
name = "keeping"
kinds = ["bus.call"]
principals = ["mad:lead"]
targets = ["echo.keep"]
verdict = "ask"

[[rules]]
name = "no-foreman"
kinds = ["bus.call", "run.start"]
principals = ["mad:lead"]
targets = ["foreman", "foreman.*"]
verdict = "deny"
reason = "lead works alone"

[[rules]]
name = "dear"
kinds = ["llm.complete"]
principals = ["run:*"]
targets = ["dear"]
verdict = "ask"

[[rules]]
name = "outward"
kinds = ["bus.call"]
principals = ["*"]
effects = ["outward"]
verdict = "deny"
"""


@asynccontextmanager
async def a_lab() -> AsyncIterator[tuple[Lab, ModelServer]]:
    async with model_server(Play(text="Yes.")) as server:
        settings = f"""
[residents.echo]
class = "{ECHO}"
[providers.here]
kind = "openai"
base_url = "{server.openai}"
key = "here"
[models.cheap]
provider = "here"
model = "scripted"
[models.dear]
provider = "here"
model = "scripted"
"""
        with a_home(settings) as home:
            (home.path / "policy.toml").write_text(POLICY)
            (home.path / "keys").mkdir(mode=0o700)
            (home.path / "keys" / "here").touch(mode=0o600)
            (home.path / "keys" / "here").write_text(KEY)
            async with opened(home) as lab:
                yield lab, server


def lead(lab: Lab, *, run: str = "lead-1") -> Context:
    """Its ports as a run of our own, or as a resident."""
    ports = frozenset({"bus", "files", "llm", "call:*"})
    identity = Identity("lead", ports, run=run, conversation="c" if run else "", core=bool(run))
    return context_for(
        lab.services, identity, Assignment(participant="lead", run="lead-1", conversation="c"), unlimited()
    )


async def asked(lab: Lab, *, besides: int = 0) -> Approval:
    with fail_after(LIMIT_S):
        while len(found := await lab.services.approvals.pending()) <= besides:
            await sleep(0.01)
    return found[besides]


def call(mad: str, tool: str, **arguments: str) -> Message:
    data = json.dumps(arguments)
    return Message(id=new_id(), conversation="c", recipient=mad, kind=KIND_CALL, tool=tool, data=data)


async def test_a_call_that_needs_a_person_is_said_in_the_transaction_that_uses_the_approval_up() -> None:
    async with a_lab() as (lab, _), create_task_group() as tasks:
        question, bus = call("echo", "keep", text="a"), lead(lab).bus
        tasks.start_soon(bus.publish, question)
        approval = await asked(lab)
        form = json.loads(approval.form)
        assert form["target"] == "echo.keep"
        assert form["details"] == {"effects": "write", "arguments": '{"text": "a"}'}
        assert await lab.rogers.find(question.id) is None
        await lab.services.approvals.approve(approval.id, by="operator")
        with fail_after(LIMIT_S):
            await lab.rogers.answer_to(question.id)
            said = await lab.rogers.find(question.id)
            assert said is not None
            used = await lab.journal.query(
                "SELECT sequence FROM journal WHERE id LIKE ?", (f"approval:{approval.id}:used%",)
            )
            assert used == [(said.sequence + 1,)]
            assert await bus.publish(question) == said.sequence  # again: it is the same message, and asks nobody
        assert len(await lab.services.approvals.newest()) == 1


async def test_what_a_call_asks_for_beside_its_arguments_is_approved_with_it() -> None:
    async with a_lab() as (lab, _), create_task_group() as tasks:
        bus, plain = lead(lab, run="").bus, call("echo", "keep", text="a")
        plain.terms.usd = 1.0
        tasks.start_soon(bus.publish, plain)
        approval = await asked(lab)
        assert json.loads(approval.form)["details"]["terms"] == '{"usd": 1.0}'
        await lab.services.approvals.approve(approval.id, by="operator", uses=9)
        with fail_after(LIMIT_S):
            await lab.rogers.answer_to(plain.id)
        others = (
            Message(text="and do something else"),
            Message(terms=Terms(usd=100.0)),
            Message(terms=Terms(usd=1.0, web=["evil.test"])),
            Message(terms=Terms(usd=1.0), deadline=time.time() + 3600),
            Message(blobs=[Blob(digest="sha256:" + "0" * 64, name="a")]),
            Message(blobs=[Blob(digest="sha256:" + "0" * 64, name="b")]),
        )
        for number, more in enumerate(others):
            other = call("echo", "keep", text="a")
            other.MergeFrom(more)
            tasks.start_soon(bus.publish, other)
            await asked(lab, besides=number)
            assert await lab.rogers.find(other.id) is None
        tasks.cancel_scope.cancel()


async def test_a_call_and_prose_that_are_denied_are_not_said_and_are_one_entry_each() -> None:
    async with a_lab() as (lab, _):
        bus = lead(lab, run="").bus
        source = {"source": "s", "goal": "g"}
        for message in (
            call("foreman", "code", **source),
            Message(id=new_id(), conversation="c", recipient="foreman", kind=KIND_PROSE, text="work"),
        ):
            with pytest.raises(Denied, match="rule no-foreman: lead works alone"):
                await bus.publish(message)
            assert await lab.rogers.find(message.id) is None
        acts = await lab.journal.query("SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE kind = 'act'")
        told = [json.loads(each[0]) for each in acts]
        assert [(each["act"], each["step"]) for each in told] == [("bus.call", "denied"), ("run.start", "denied")]


async def test_who_approves_a_prompt_because_of_what_has_flowed_into_it_approves_its_words() -> None:
    async with a_lab() as (lab, _), create_task_group() as tasks:
        rule = POLICY + "\n[[rules]]\nname = 'words'\nkinds = ['llm.complete']\nprincipals = ['*']\ntaint = ['file']\n"
        rules = parse_policy(f"{rule}verdict = 'ask'\n", "policy.toml")
        lab.services.policy = Policy([rules, read_policy(BUILT_IN)])
        ctx = lead(lab)
        await lab.services.taints.add(Identity("lead", frozenset(), run="lead-1", conversation="c"), {"file"})

        async def complete() -> None:
            async for _ in ctx.llm.complete(prompt("Is it?", model="cheap")):
                pass

        tasks.start_soon(complete)
        assert "Is it?" in json.loads((await asked(lab)).form)["details"]["begins"]
        tasks.cancel_scope.cancel()


async def test_a_model_that_needs_a_person_is_asked_once_it_was_approved_and_the_use_goes_with_its_start() -> None:
    async with a_lab() as (lab, server), create_task_group() as tasks:
        llm, heard = lead(lab).llm, list[str]()

        async def complete(model: str) -> None:
            async for event in llm.complete(prompt("Is it?", model=model)):
                heard.append(event.WhichOneof("kind") or "")

        with fail_after(LIMIT_S):
            await complete("cheap")
        assert await lab.services.approvals.newest() == []
        heard.clear()
        tasks.start_soon(complete, "dear")
        approval = await asked(lab)
        assert "Is it?" in json.loads(approval.form)["details"]["begins"]
        assert (len(server.requests), heard) == (1, [])
        await lab.services.approvals.approve(approval.id, by="operator")
        with fail_after(LIMIT_S):
            while "finished" not in heard:
                await sleep(0.01)
        rows = await lab.journal.query("SELECT sequence, id FROM journal ORDER BY sequence")
        ids = {id: sequence for sequence, id in rows}
        (used,) = [each for each in ids if each.startswith(f"approval:{approval.id}:used")]
        started = max(ids[each] for each in ids if each.startswith("act:llm:") and each.endswith(":started"))
        assert ids[used] == started + 2  # its start, its hold, the use: one transaction
