"""Two labs on one machine and one engine: neither sees, reaps or answers for the other."""

import json

import pytest
from anyio import create_task_group, fail_after, sleep

from core.run import Outcome, State
from protos.ids import new_id
from protos.v1.message_pb2 import Message
from tests.labs import EMADS, a_home, call, opened

pytestmark = pytest.mark.docker
IMAGES = ("base", "tests/emads/echo")


async def test_a_lab_that_starts_and_ends_leaves_the_runs_of_another_alone() -> None:
    with a_home(EMADS, images=IMAGES) as one, a_home(EMADS, images=IMAGES) as other:
        assert one.lab != other.lab
        assert one.runtime != other.runtime
        async with opened(one) as first, create_task_group() as tasks:
            asked, answers = new_id(), list[Message]()

            async def long_work() -> None:
                answers.append(await call(first, "echo", "say_later", id=asked, text="undisturbed", after_s=3))

            tasks.start_soon(long_work)
            run = first.runs.id_of("echo", asked)
            with fail_after(60):
                while not await first.runs.known(run) or (await first.runs.get(run)).state is not State.RUNNING:
                    await sleep(0.02)
            for _ in range(2):  # starting reaps what an earlier core of the same lab left, and of that lab only
                async with opened(other) as second:
                    assert json.loads((await call(second, "echo", "say", text="hello")).data) == {"text": "hello"}
                    assert await second.runs.known(run) is False
                    engine = second.residents._workers.engines["runc"]
                    assert not [name for name in await engine.names() if name == (await first.runs.get(run)).sandbox]
            with fail_after(60):
                while not answers:
                    await sleep(0.05)
            assert json.loads(answers[0].data) == {"text": "undisturbed"}
            with fail_after(60):
                while (ended := await first.runs.get(run)).state is not State.DESTROYED:
                    await sleep(0.05)
            assert ended.outcome is Outcome.SUCCEEDED
