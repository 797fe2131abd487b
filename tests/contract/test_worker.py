"""What a host of one run owes the core, whatever language it is written in: evidence, ends, leases, reconnection."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import anyio
import pytest
from anyio import fail_after
from anyio.abc import Process

from core.app import open_journal
from core.gate import Session, hash_of, open_door
from core.horace.store import Horace
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Services, unlimited
from core.registry import Registry
from core.rogers.bus import Rogers
from protos.errors import NotFound, Unavailable
from protos.ids import new_id
from protos.remote import connect, ports_of
from protos.remote.session import translating
from protos.serve import answer_id
from protos.v1.files_pb2 import PutRequest
from protos.v1.files_pb2_grpc import FilesStub
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, Blob, Message
from protos.v1.session_pb2 import OUTCOME_FAILED, OUTCOME_SUCCEEDED, Assignment
from tests.emads.node import node_echo
from tests.labs import ECHO, ROOT, a_home

TOKEN = "the one-use token"
LEASE_S = 60.0
SHORT_S = 2.0


@dataclass
class Guest:
    """A worker without a sandbox, and the core's side of its session."""

    services: Services
    session: Session
    question: Message
    process: Process

    async def ended(self) -> int:
        with fail_after(60):
            return await self.process.wait()

    async def answer(self) -> Message:
        with fail_after(60):
            async with self.services.rogers.follow(conversation=self.question.conversation) as messages:
                async for each in messages:
                    if each.id == answer_id(self.question):
                        return each
        raise AssertionError("the conversation ended without an answer")

    async def finished(self) -> dict[str, object]:
        """What the worker reported at its end; the report is taken."""
        with fail_after(60):
            await self.session.done.wait()
        self.session.recorded.set()
        verdict = self.session.finished
        assert verdict is not None
        names = [each.name for each in verdict.artifacts]
        return {"outcome": verdict.outcome, "evidence": json.loads(verdict.evidence or "{}"), "artifacts": names}


@pytest.fixture(params=["python", "node"])
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    """The program that serves echo."""
    return node_echo() if request.param == "node" else [sys.executable, "-m", "protos.host", ECHO]


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    """What a worker's ports stand on, without a dispatcher: these tests play its part."""
    with a_home() as home:
        async with (
            open_journal(home) as journal,
            Rogers(journal) as rogers,
            Horace(home.path / "blobs", journal, quota_bytes=2**30) as horace,
        ):
            yield Services(journal, rogers, horace, Registry([]))


@asynccontextmanager
async def a_run(
    services: Services,
    command: Sequence[str],
    directory: Path,
    tool: str,
    *,
    lease_s: float = LEASE_S,
    **arguments: object,
) -> AsyncIterator[Guest]:
    """Starts a worker and says what its run is for; its door is the caller's to open."""
    question = Message(
        id=new_id(), conversation=new_id(), recipient="guest", kind=KIND_CALL, tool=tool, data=json.dumps(arguments)
    )
    await services.rogers.publish(question, sender="operator")
    identity = Identity("guest", frozenset({"bus", "files"}), run="run", conversation=question.conversation)
    assignment = Assignment(participant="guest", run="run", conversation=question.conversation, trigger=question.id)
    session = Session(lease_s=lease_s, token=hash_of(TOKEN))
    session.assign(context_for(services, identity, assignment, unlimited()))
    environment = {"MADLAB_DOOR": str(directory), "PATH": "/usr/bin:/bin"}
    async with await anyio.open_process(command, cwd=ROOT, env=environment, stdout=None, stderr=None) as process:
        try:
            assert process.stdin is not None
            await process.stdin.send(f"{TOKEN}\n".encode())
            yield Guest(services, session, question, process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


async def test_a_run_ends_with_its_evidence_and_artifacts(
    services: Services, command: Sequence[str], tmp_path: Path
) -> None:
    async with (
        a_run(services, command, tmp_path, "keep", text="something") as guest,
        open_door(tmp_path, guest.session),
    ):
        reply = await guest.answer()
        assert reply.kind == KIND_REPLY
        assert [each.name for each in reply.blobs] == ["kept.txt"]
        assert await guest.finished() == {
            "outcome": OUTCOME_SUCCEEDED,
            "evidence": {"kept": 9},
            "artifacts": ["kept.txt"],
        }
        assert await guest.ended() == 0


async def test_a_result_of_many_chunks_arrives_whole(
    services: Services, command: Sequence[str], tmp_path: Path
) -> None:
    async with (
        a_run(services, command, tmp_path, "repeat", text="0123456789", times=150_000) as guest,
        open_door(tmp_path, guest.session),
    ):
        reply = await guest.answer()
        assert [each.name for each in reply.blobs] == ["result.json"]
        body = b"".join([chunk async for chunk in services.horace.get(reply.blobs[0].digest)])
        assert json.loads(body) == {"text": "0123456789" * 150_000}


async def test_a_tool_that_raises_makes_the_run_a_failed_one(
    services: Services, command: Sequence[str], tmp_path: Path
) -> None:
    async with (
        a_run(services, command, tmp_path, "misbehave", how="raise") as guest,
        open_door(tmp_path, guest.session),
    ):
        assert (await guest.answer()).kind == KIND_FAULT
        assert (await guest.finished())["outcome"] == OUTCOME_FAILED
        assert await guest.ended() == 0


async def test_a_worker_that_is_told_to_end_ends(services: Services, command: Sequence[str], tmp_path: Path) -> None:
    async with (
        a_run(services, command, tmp_path, "misbehave", how="hang") as guest,
        open_door(tmp_path, guest.session),
    ):
        with fail_after(60):
            await guest.session.attached.wait()
        guest.session.tell_end("cancelled", 2.0)
        assert await guest.ended() == 0


async def test_a_worker_that_is_not_answered_for_a_lease_ends_by_itself(
    services: Services, command: Sequence[str], tmp_path: Path
) -> None:
    async with a_run(services, command, tmp_path, "misbehave", lease_s=SHORT_S, how="hang") as guest:
        async with open_door(tmp_path, guest.session):
            with fail_after(60):
                while not guest.session.confirmed:  # it knows the lease
                    await anyio.sleep(0.05)
        assert await guest.ended() == 3
        assert anyio.current_time() - guest.session.heard > SHORT_S * 0.9, "not before its lease was over"


async def test_a_worker_outlives_a_core_that_is_away_while_it_works(
    services: Services, command: Sequence[str], tmp_path: Path
) -> None:
    async with a_run(services, command, tmp_path, "say_later", text="survived", after_s=2.0) as guest:
        async with open_door(tmp_path, guest.session):
            with fail_after(60):
                while not guest.session.confirmed:
                    await anyio.sleep(0.05)
            await anyio.sleep(0.5)
        await anyio.sleep(0.5)
        async with open_door(tmp_path, guest.session):
            reply = await guest.answer()
            assert json.loads(reply.data) == {"text": "survived"}
            assert (await guest.finished())["outcome"] == OUTCOME_SUCCEEDED
            assert await guest.ended() == 0


async def test_a_wrong_token_is_refused_and_ends_the_worker(
    services: Services, command: Sequence[str], tmp_path: Path
) -> None:
    async with a_run(services, command, tmp_path, "say", text="never") as guest:
        guest.session.token = hash_of("another one")
        async with open_door(tmp_path, guest.session):
            assert await guest.ended() == 4


async def test_a_blob_whose_bytes_break_off_is_not_stored_under_the_digest_of_its_first_half(
    services: Services, tmp_path: Path
) -> None:
    session = Session(lease_s=LEASE_S, token=hash_of(TOKEN))
    identity = Identity("guest", frozenset({"bus", "files"}), run="run", conversation="c")
    assignment = Assignment(participant="guest", run="run", conversation="c")
    session.assign(context_for(services, identity, assignment, unlimited()))
    async with (
        open_door(tmp_path, session),
        connect(f"unix:{tmp_path}/gate.sock", TOKEN, on_end=lambda: None) as remote,
    ):
        files = ports_of(remote, await remote.assigned()).files

        async def put(*parts: PutRequest) -> Blob:
            async def requests() -> AsyncIterator[PutRequest]:
                for each in parts:
                    yield each

            with translating():
                return await FilesStub(remote.channel).Put(requests(), metadata=remote.metadata)

        async def cut() -> AsyncIterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        about = PutRequest(about=Blob(name="x"), more=True)
        with fail_after(60):
            with pytest.raises(Unavailable, match="broke off"):
                await put(about, PutRequest(bytes=b"half", more=True))
            with pytest.raises(ZeroDivisionError):
                await files.put(cut())
            assert (await put(about, PutRequest(bytes=b"whole"))).size == 5
            with pytest.raises(NotFound):
                await services.horace.stat(f"sha256:{sha256(b'half').hexdigest()}")
            unmarked = await put(PutRequest(about=Blob(name="x")), PutRequest(bytes=b"ha"), PutRequest(bytes=b"lf"))
        assert unmarked.size == 4, "who never says `more` ends with the stream, as ever"
