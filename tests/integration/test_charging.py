"""What a run pays for its acts is at least what the journal keeps of them, done or denied."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from anyio import fail_after

from core.lab import Lab
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Allowance
from protos.errors import Denied, Error, Exhausted
from protos.ids import new_id
from protos.mad import Context
from protos.v1.message_pb2 import KIND_CALL, Message
from protos.v1.session_pb2 import Assignment
from protos.v1.web_pb2 import Header, RequestHead
from tests.labs import ECHO, a_home, opened

POLICY = """
[[rules]]
name = "keeping"
kinds = ["bus.call"]
principals = ["mad:chatty"]
targets = ["echo.keep"]
verdict = "deny"
reason = "it keeps nothing"
"""
HEAD_BYTES = 300  # of an entry beside its body: ids, names, hashes
LIMIT_S = 30


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    with a_home(f'[residents]\necho = {{ class = "{ECHO}" }}\n') as home:
        (home.path / "policy.toml").write_text(POLICY)
        async with opened(home) as lab:
            yield lab


def a_run(lab: Lab, *, said: int = 2**40) -> tuple[Context, Allowance]:
    """The ports of a run that nobody has started, and what it may move through them."""
    identity = Identity("chatty", frozenset({"bus", "files", "call:echo", "web"}), run="chatty-1", conversation="c")
    allowance = Allowance(2**40, 2**40, said)
    return context_for(lab.services, identity, Assignment(participant="chatty", run="chatty-1"), allowance), allowance


async def kept(lab: Lab) -> list[bytes]:
    """What the journal holds of what the run did and said."""
    return [
        bytes(body)
        for (body,) in await lab.journal.query(
            "SELECT body FROM journal JOIN body USING (sequence) WHERE sender IN ('chatty', 'chatty-1')"
            " AND kind IN ('act', 'message') ORDER BY sequence",
            (),
        )
    ]


async def fetch(ctx: Context, url: str, *headers: Header) -> None:
    async for _ in ctx.web.fetch(RequestHead(id=new_id(), method="GET", url=url, headers=headers)):
        pytest.fail("nobody lets it")


async def ask(ctx: Context, tool: str, text: str) -> None:
    said = Message(id=new_id(), conversation="c", recipient="echo", kind=KIND_CALL, tool=tool)
    said.data = json.dumps({"text": text})
    await ctx.bus.publish(said)


async def put(ctx: Context, name: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    await ctx.files.put(chunks(), name=name)


async def test_every_act_is_paid_for_at_least_as_it_is_kept_and_a_denial_is_short(lab: Lab) -> None:
    ctx, allowance = a_run(lab)
    long = "https://example.org/?q=" + "x" * 7000
    acts = [
        fetch(ctx, "https://example.org/"),
        fetch(ctx, long),
        fetch(ctx, "https://example.org/", Header(name="X-Long", value=b"y" * 9000)),
        ask(ctx, "say", "brief"),
        ask(ctx, "keep", "brief"),
        ask(ctx, "keep", '"' * 7000),
        put(ctx, "a" * 255),
    ]
    for act in acts:
        before, paid, verdict = await kept(lab), allowance.used_said, "allowed"
        with fail_after(LIMIT_S):
            try:
                await act
            except Denied:
                verdict = "denied"
        new = (await kept(lab))[len(before) :]
        assert new
        assert sum(len(each) + HEAD_BYTES for each in new) <= allowance.used_said - paid
        if verdict == "denied":
            assert sum(map(len, new)) < 3000
    denials = [json.loads(each) for each in await kept(lab) if b'"denied"' in each]
    assert len(denials) == 5
    assert denials[0]["target"] == "https://example.org/"
    assert "cut" not in denials[0]
    assert denials[1]["target"] == long[:512]
    assert denials[1]["cut"] == {"target": f"sha256:{sha256(long.encode()).hexdigest()}"}


async def test_nothing_is_written_of_an_act_that_cannot_be_paid_for(lab: Lab) -> None:
    ctx, _ = a_run(lab, said=1000)
    before = await kept(lab)
    for act in (fetch(ctx, "https://example.org/"), ask(ctx, "keep", "x"), put(ctx, "a")):
        with pytest.raises(Exhausted, match="said its 1000 bytes"), fail_after(LIMIT_S):
            await act
    assert await kept(lab) == before


async def test_a_value_at_the_end_of_what_is_kept_of_a_denial_is_not_cut_into_one_nobody_knows(lab: Lab) -> None:
    ctx, _ = a_run(lab)
    value = b"s3cr3t-value-of-a-long-key-0123456789"
    lab.services.redactor.learn("key", value)
    start = "https://example.org/?q="
    url = start + "x" * (512 - len(start) - 20) + value.decode() + "y" * 600
    with pytest.raises(Error), fail_after(LIMIT_S):
        await fetch(ctx, url)
    last = (await kept(lab))[-1]
    assert b'"denied"' in last
    assert value[:8] not in last
