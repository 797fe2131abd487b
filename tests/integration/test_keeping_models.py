"""The workers of local models: started when asked, ended when nobody asks, started again after a crash. Theirs are host
processes here and the model plays; `test_local_model.py` has the real ones."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import create_task_group, fail_after, sleep

import core.models
from core.admission import Admission
from core.fiedler.provider import Ask, Kind, Reported, Trouble
from core.fiedler.providers.hosted import HostedProvider
from core.fiedler.store import Store, catalogue
from core.isolation import Isolation
from core.models import LocalModels
from core.workers import Workers
from protos.llm import Completion, prompt
from sandbox.engine import Engine
from sandbox.engines.process import ProcessEngine
from sandbox.profile import Profile
from sandbox.seen import Seen
from tests.labs import lab_of

SMALL = catalogue()["qwen2.5-coder-0.5b"]
PLAYS = "tests.served:PlayingModel"


@dataclass
class Stage:
    """A keeper, and what it keeps its workers with."""

    models: LocalModels
    workers: Workers
    admission: Admission

    async def ask(self, *, idle_s: float = 60) -> Completion:
        """A whole answer."""
        completion = Completion()
        async with HostedProvider(self.models, idle_s=idle_s) as provider:
            with fail_after(60):
                async for each in provider.complete(Ask(prompt("Hello?"), SMALL.name, 100)):
                    if not isinstance(each, Reported):
                        completion.take(each)
        return completion

    async def gone(self) -> None:
        """Waits until no worker stands."""
        with fail_after(60):
            while self.workers.standing:
                await sleep(0.02)


@asynccontextmanager
async def a_stage(directory: Path, entry: str = PLAYS, *, installed: bool = True) -> AsyncIterator[Stage]:
    """A keeper of one small model."""
    store = Store(directory)
    if installed:
        store.folder(SMALL).mkdir(parents=True)
        with (store.folder(SMALL) / "model.gguf").open("wb") as file:
            file.truncate(SMALL.bytes)
    profile = Profile(image="", entry=(sys.executable, "-m", "protos.host", entry), runtime="process", least="none")
    models = LocalModels(store, profile)
    async with lab_of() as lab, create_task_group() as tasks:
        engine = ProcessEngine(lab.home.lab, lab.home.runtime / "m")
        engines: dict[str, Engine] = {"process": engine}
        workers = Workers(lab.home.lab, lab.home.runtime / "w", engines, Isolation(engines, Seen(directory)), 30)
        admission = Admission(max_running=1, memory_mb=2000)
        await tasks.start(models.serve, lab.services, workers, admission)
        yield Stage(models, workers, admission)
        tasks.cancel_scope.cancel()
    assert await engine.names() == []


async def test_nothing_runs_until_somebody_asks_and_one_worker_answers_all(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        assert (stage.workers.standing, stage.models.state(SMALL.name)) == ({}, ("ready", ""))
        async with create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(stage.ask)
            with fail_after(60):
                while not stage.workers.standing:
                    await sleep(0.005)
            assert stage.models.state(SMALL.name)[0] == "loading"
        assert list(stage.workers.standing.values()) == ["llama"]
        assert stage.models.state(SMALL.name) == ("ready", "")


async def test_a_worker_that_nobody_asks_ends_and_the_next_question_starts_another(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        for _ in range(2):
            assert (await stage.ask(idle_s=0.2)).text == "Hello there."
            (name,) = stage.workers.standing
            assert name.startswith("llama-")
            await stage.gone()


async def test_a_claim_keeps_a_worker_however_long_it_takes(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        line = await stage.models.claim(SMALL.name, 0.1)
        await sleep(0.5)
        assert not line.closed.is_set()
        stage.models.release(SMALL.name)
        await stage.gone()
        assert line.closed.is_set()


async def test_a_worker_that_is_killed_breaks_its_answers_and_another_takes_the_next(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        line = await stage.models.claim(SMALL.name, 60)
        os.kill(_pid_of_worker(), signal.SIGKILL)
        with fail_after(60):
            await line.closed.wait()
        stage.models.release(SMALL.name)
        assert (await stage.ask()).text == "Hello there."


async def test_a_model_takes_memory_and_no_place_of_a_run(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        await stage.models.claim(SMALL.name, 60)
        async with stage.admission.share(500):  # the one place there is
            pass
        with pytest.raises(TimeoutError), fail_after(0.1):
            async with stage.admission.share(1500):  # with the model's 1,064 that is too much
                pass
        stage.models.release(SMALL.name)


async def test_a_model_never_waits_for_runs_that_wait_for_it(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage, stage.admission.share(1900):
        assert (await stage.ask()).text == "Hello there."


async def test_a_model_that_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    async with a_stage(tmp_path, installed=False) as stage:
        with pytest.raises(Trouble) as caught:
            await stage.ask()
        assert caught.value.kind is Kind.MODEL
        assert caught.value.text == f"{SMALL.name} is not installed. Get it with: madlab model install {SMALL.name}"
        assert stage.models.state(SMALL.name)[0] == "not installed"


async def test_a_worker_that_does_not_come_up_is_told_to_all_who_wait(tmp_path: Path) -> None:
    async with a_stage(tmp_path, "tests.served:Wordy") as stage:
        troubles: list[Trouble] = []

        async def one() -> None:
            with pytest.raises(Trouble) as caught:
                await stage.ask()
            troubles.append(caught.value)

        async with create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one)
        assert [each.kind for each in troubles] == [Kind.UNREACHABLE] * 3
        assert "there are no weights" in troubles[0].text, "its last words, however long it spoke before"
        state, note = stage.models.state(SMALL.name)
        assert state == "failed"
        assert "there are no weights" in note
        await stage.gone()


async def test_who_asks_is_told_when_a_model_loads_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.models, "PATIENCE_S", 0.05)
    async with a_stage(tmp_path) as stage:
        with pytest.raises(Trouble) as caught:
            await stage.ask()
        assert caught.value.kind is Kind.OVERLOADED
        assert "still loading" in caught.value.text
        assert caught.value.retry_after_s
        monkeypatch.undo()
        assert (await stage.ask()).text == "Hello there."


def _pid_of_worker() -> int:
    """The process that serves the model."""
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                words = (each / "cmdline").read_bytes().split(b"\0")
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if PLAYS.encode() in words and parent == os.getpid():
                return int(each.name)
    raise AssertionError("there is no worker")
