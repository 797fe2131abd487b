"""What every engine promises: one body per behaviour, over host processes, bubblewrap, Docker with runc and gVisor.

A runtime takes part only when its probe accepts it, and the skip says why not. What a test makes carries a lab id of
its own; nothing else on the engine is looked at.
"""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, create_unix_listener, fail_after, sleep
from anyio.abc import SocketStream

from sandbox.engine import Engine, Exit, Program, SandboxError
from sandbox.engines.docker.engine import DockerEngine
from sandbox.engines.process import ProcessEngine
from sandbox.profile import Bundle, Profile
from tests import bubblewrap_lab
from tests.bubblewrap_lab import need_bubblewrap
from tests.docker_lab import need_runtime
from tests.sizes import full

MANY = 12 if full() else 6
FOREVER = "import time\nwhile True: time.sleep(60)"


@dataclass
class Home:
    """Where one body runs: an engine, and how a Python program is called there."""

    kind: str
    lab: str
    directory: Path
    make: Callable[[str], Engine]

    @property
    def engine(self) -> Engine:
        """A new object each time, as a restarted core has one."""
        return self.make(self.lab)

    def program(self, code: str, stdin: bytes = b"token\n", **limits: Any) -> Program:
        python = sys.executable if self.kind == "process" else "python3"
        runtime = "runc" if self.kind == "process" else self.kind
        door = self.directory / "door"
        door.mkdir(mode=0o711, exist_ok=True)
        door.chmod(0o711)
        profile = Profile("base", (python, "-c", code), runtime=runtime, **limits)
        return Program(profile, stdin, door)

    async def run(self, code: str, **limits: Any) -> Exit:
        async with self.engine.open(name(), self.program(code, b"token\n", **limits)) as sandbox:
            with fail_after(60):
                return await sandbox.wait()


def engine_of(kind: str, lab: str, directory: Path) -> Engine:
    if kind == "process":
        return ProcessEngine(lab, directory / lab)
    return bubblewrap_lab.engine(lab, directory) if kind == "bwrap" else DockerEngine(lab)


def name() -> str:
    return f"t-{secrets.token_hex(4)}"


# Quick tests start no sandbox: the mark keeps all of them out.
@pytest.fixture(
    params=["process", *(pytest.param(each, marks=pytest.mark.docker) for each in ("bwrap", "runc", "runsc"))]
)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    kind = str(request.param)
    lab = {"process": lambda: "process", "bwrap": need_bubblewrap}.get(kind, lambda: need_runtime(kind))()
    return Home(kind, lab, tmp_path, lambda lab: engine_of(kind, lab, tmp_path))


async def test_the_exit_code_and_the_last_words_come_back_as_data(home: Home) -> None:
    ended = await home.run("import sys; print('out'); print('err \\x1b[31m', file=sys.stderr); sys.exit(3)")
    assert (ended.code, ended.reason) == (3, "exited")
    assert "out" in ended.log
    assert "err \x1b[31m" in ended.log


async def test_the_token_is_one_line_on_standard_input_and_its_end_means_nothing(home: Home) -> None:
    ended = await home.run("import sys; print(sys.stdin.readline().strip(), repr(sys.stdin.read()), 'still here')")
    assert "token '' still here" in ended.log


async def test_a_program_reaches_the_socket_in_its_door(home: Home) -> None:
    program = home.program(
        "import os, socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect(os.environ['MADLAB_DOOR'] + '/gate.sock')\ns.sendall(b'hello')\nprint(s.recv(9).decode())"
    )

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.send((await stream.receive()).upper())

    # The path of a socket is short, and that of a temporary folder need not be.
    here = os.open(program.door, os.O_RDONLY)
    try:
        listener = await create_unix_listener(f"/proc/self/fd/{here}/gate.sock", mode=0o666)
        async with listener, create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            async with home.engine.open(name(), program) as sandbox:
                with fail_after(60):
                    ended = await sandbox.wait()
            tasks.cancel_scope.cancel()
    finally:
        os.close(here)
    assert ended.code == 0, ended.log
    assert "HELLO" in ended.log


async def test_a_bundle_is_there_to_be_read_and_never_to_be_written(home: Home) -> None:
    mine = home.directory / "weights"
    mine.mkdir(mode=0o755)
    (mine / "model.gguf").write_bytes(b"weights")
    (mine / "model.gguf").chmod(0o666)  # even what its owner forgot to shut
    mine.chmod(0o777)
    bundles = (Bundle(mine, "/bundle/model", "sha256:0"), Bundle(mine, "/bundle/other", "sha256:0"))
    program = home.program(
        """
import os
folder = os.path.join(os.environ["MADLAB_BUNDLES"], "model")
print(open(os.path.join(folder, "model.gguf")).read(), sorted(os.listdir(os.path.dirname(folder))))
for name, flags in (("model.gguf", os.O_WRONLY), ("new", os.O_WRONLY | os.O_CREAT)):
    try:
        os.open(os.path.join(folder, name), flags)
        print(name, "opened")
    except OSError as error:
        print(name, error.strerror)
"""
    )
    program = replace(program, profile=replace(program.profile, bundles=bundles))
    async with home.engine.open(name(), program) as sandbox:
        with fail_after(60):
            ended = await sandbox.wait()
    assert ended.code == 0, ended.log
    assert "weights ['model', 'other']" in ended.log
    if home.kind != "process":  # where nothing but the host's permissions guard it
        assert "model.gguf Read-only file system\nnew Read-only file system" in ended.log
        assert (mine / "model.gguf").read_bytes() == b"weights"
        assert [each.name for each in mine.iterdir()] == ["model.gguf"]


async def test_a_bundle_that_is_gone_is_the_engines_error_at_the_start(home: Home) -> None:
    if home.kind == "process":
        pytest.skip("a host process finds a link to nowhere")
    program = home.program("")
    gone = Bundle(home.directory / "nowhere", "/bundle/model", "sha256:0")
    program = replace(program, profile=replace(program.profile, bundles=(gone,)))
    with pytest.raises(SandboxError, match="nowhere"):
        async with home.engine.open(name(), program):
            pass


def test_a_bundle_lies_below_its_one_folder_and_nowhere_else() -> None:
    for place in ("/bundle", "/usr/lib", "/bundle/../etc", "/bundle/a/b", "bundle/a", "/bundle/A"):
        with pytest.raises(ValueError, match="a bundle's place"):
            Bundle(Path("/nowhere"), place, "sha256:0")


async def test_a_killed_program_is_told_from_one_that_ended(home: Home) -> None:
    async with home.engine.open(name(), home.program(FOREVER)) as sandbox:
        await sandbox.kill()
        with fail_after(60):
            ended = await sandbox.wait()
        assert (ended.code, ended.reason) == (None, "killed")
        await sandbox.kill()  # killing what has ended is no error


async def test_several_may_wait_and_wait_again(home: Home) -> None:
    seen: list[Exit] = []
    async with home.engine.open(name(), home.program("import time; time.sleep(0.3); raise SystemExit(7)")) as sandbox:

        async def wait() -> None:
            seen.append(await sandbox.wait())

        with fail_after(60):
            async with create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(wait)
            await wait()
    assert [each.code for each in seen] == [7] * 4


async def test_leaving_destroys_without_a_trace(home: Home) -> None:
    engine, mine = home.engine, name()
    async with engine.open(mine, home.program(FOREVER)):
        assert mine in await engine.names()
    assert mine not in await engine.names()


async def test_an_error_in_the_body_comes_through_and_destroys(home: Home) -> None:
    engine, mine = home.engine, name()
    with pytest.raises(ZeroDivisionError):
        async with engine.open(mine, home.program(FOREVER)):
            raise ZeroDivisionError
    assert mine not in await engine.names()


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03, 0.1, 0.2, 0.4] if full() else [0.01, 0.1, 0.3])
async def test_a_cancelled_open_leaves_nothing_behind(home: Home, pause: float) -> None:
    engine, mine = home.engine, name()

    async def start() -> None:
        async with engine.open(mine, home.program(FOREVER)):
            await sleep(60)

    with fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(start)
            await sleep(pause)
            tasks.cancel_scope.cancel()
    assert mine not in await engine.names()


async def test_a_sandbox_that_was_left_is_adopted_by_name_by_another_core(home: Home) -> None:
    mine = name()
    program = home.program(
        "import os, sys, time\nprint('first words', flush=True)\n"
        "while not os.path.exists(os.environ['MADLAB_DOOR'] + '/adopted'): time.sleep(0.02)\n"
        "print('last words')\nsys.exit(4)"
    )
    async with home.engine.open(mine, program) as sandbox:
        sandbox.leave()
    another = home.engine
    assert mine in await another.names()
    async with another.adopt(mine) as adopted:
        assert adopted.name == mine
        (program.door / "adopted").touch()
        with fail_after(60):
            ended = await adopted.wait()
    assert ended.reason == "exited"
    assert "first words" in ended.log
    assert "last words" in ended.log
    assert mine not in await another.names()
    if home.kind != "process":  # a host process's exit code belongs to its parent, which is gone in earnest
        assert ended.code == 4


async def test_one_that_ended_while_no_core_looked_is_adopted_too(home: Home) -> None:
    mine = name()
    async with home.engine.open(mine, home.program("print('done')")) as sandbox:
        await sandbox.wait()
        sandbox.leave()
    async with home.engine.adopt(mine) as adopted:
        with fail_after(60):
            assert "done" in (await adopted.wait()).log
    assert mine not in await home.engine.names()


async def test_adopting_what_is_not_there_is_an_error(home: Home) -> None:
    with pytest.raises(SandboxError, match="no sandbox"):
        async with home.engine.adopt("never-was"):
            pass


async def test_a_name_is_given_once(home: Home) -> None:
    engine, mine = home.engine, name()
    async with engine.open(mine, home.program(FOREVER)) as first:
        with pytest.raises(SandboxError):
            async with engine.open(mine, home.program(FOREVER)):
                pass
        assert mine in await engine.names()
        assert (await first.usage()).pids >= 1


async def test_reaping_takes_what_is_not_kept_and_nothing_of_another_lab(home: Home) -> None:
    engine, other = home.engine, home.make(home.lab[::-1])
    keep, drop = name(), name()
    async with engine.open(keep, home.program(FOREVER)) as kept:
        async with engine.open(drop, home.program(FOREVER)) as dropped:
            dropped.leave()
        assert await other.reap(()) == []
        assert await other.names() == []
        assert await engine.reap({keep}) == [drop]
        assert await engine.names() == [keep]
        assert (await kept.usage()).pids >= 1


async def test_what_a_crashed_core_left_is_reaped(home: Home) -> None:
    mine = name()
    program = home.program("import os, time\nos.fork()\nwhile True: time.sleep(60)")
    source = f"""
import os, sys, signal, anyio
from pathlib import Path
from typing import Any
from sandbox.engine import Program
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.profile import Bundle, Profile
from tests.contract.test_engine import engine_of
async def main():
    engine = engine_of({home.kind!r}, {home.lab!r}, Path({str(home.directory)!r}))
    program = Program({program.profile!r}, b"token\\n", Path({str(program.door)!r}))
    async with engine.open({mine!r}, program):
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""
    crashed = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    engine = home.engine
    assert mine in await engine.names()
    assert mine in await engine.reap(())
    assert mine not in await engine.names()


async def test_children_of_the_program_go_with_it(home: Home) -> None:
    mark = secrets.token_hex(8)
    child = f"[sys.executable, '-c', 'import time; time.sleep(99)', '{mark}']"
    code = f"import subprocess, sys, time\nsubprocess.Popen({child})\ntime.sleep(99)"
    async with home.engine.open(name(), home.program(code)) as sandbox:
        with fail_after(60):
            while (await sandbox.usage()).pids < 2:
                await sleep(0.05)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert mark not in running


async def test_usage_is_told_while_it_runs_and_not_after(home: Home) -> None:
    async with home.engine.open(name(), home.program("x = bytearray(b'1') * (32 << 20)\n" + FOREVER)) as sandbox:
        with fail_after(60):
            while (usage := await sandbox.usage()).memory_bytes < 32 << 20:
                await sleep(0.05)
        assert usage.memory_bytes < 400 << 20
        assert usage.cpu_seconds > 0
        assert usage.pids >= 1
        look = await sandbox.meter()
        assert look().memory_bytes >= 32 << 20
        assert look().cpu_seconds >= usage.cpu_seconds
        await sandbox.kill()
        await sandbox.wait()
        with pytest.raises(SandboxError):
            await sandbox.usage()


async def test_a_flood_of_words_is_bounded(home: Home) -> None:
    ended = await home.run("for n in range(20000): print('x' * 100)\nprint('the end')")
    assert len(ended.log) <= 16 * 1024
    assert ended.log.rstrip().endswith("the end")


async def test_a_program_that_cannot_be_found_is_the_engines_error_at_the_start(home: Home) -> None:
    engine, mine = home.engine, name()
    program = home.program("")
    wrong = Program(Profile("base", ("no-such-program",), runtime=program.profile.runtime), b"", program.door)
    with pytest.raises(SandboxError):
        async with engine.open(mine, wrong):
            pass
    assert mine not in await engine.names()


async def test_a_strange_name_is_refused(home: Home) -> None:
    for wrong in ("", "../x", "a b", "A", "x" * 64, "-x"):
        with pytest.raises(SandboxError, match="no name for a sandbox"):
            async with home.engine.open(wrong, home.program(FOREVER)):
                pass


async def test_many_at_once_all_end_and_leave_nothing(home: Home) -> None:
    engine = home.engine
    codes: list[int | None] = []

    async def run(number: int) -> None:
        async with engine.open(f"many-{number}", home.program(f"raise SystemExit({number})")) as sandbox:
            codes.append((await sandbox.wait()).code)

    with fail_after(120):
        async with create_task_group() as tasks:
            for number in range(MANY):
                tasks.start_soon(run, number)
    assert sorted(code for code in codes if code is not None) == list(range(MANY))
    assert [each for each in await engine.names() if each.startswith("many-")] == []


async def test_out_of_memory_and_a_full_disk_are_different_ends(home: Home) -> None:
    if home.kind == "process":
        pytest.skip("host processes have no limits")
    starved = await home.run("x = bytearray(b'1') * (400 << 20)", memory_mb=64, workspace_mb=8)
    assert starved.reason == "out_of_memory"
    full = await home.run("open('/workspace/x', 'wb').write(b'1' * (16 << 20))", memory_mb=128, workspace_mb=8)
    assert (full.code, full.reason) == (1, "exited")
    assert "No space left" in full.log


async def test_a_missing_image_says_how_to_build_it(home: Home) -> None:
    if home.kind == "process":
        pytest.skip("host processes have no image")
    engine, mine = home.engine, name()
    program = home.program("")
    wrong = Program(Profile("nowhere", program.profile.entry, runtime=program.profile.runtime), b"", program.door)
    with pytest.raises(SandboxError, match=r"python -m sandbox\.images --lab \w+ build nowhere"):
        async with engine.open(mine, wrong):
            pass
    assert mine not in await engine.names()


async def test_an_unknown_runtime_says_what_to_do(home: Home) -> None:
    if home.kind != "runc":
        pytest.skip("asked once, of Docker")
    program = home.program("")
    wrong = Program(Profile("base", program.profile.entry, runtime="kata"), b"", program.door)
    with pytest.raises(SandboxError, match="no runtime 'kata'"):
        async with home.engine.open(name(), wrong):
            pass


async def test_no_engine_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(SandboxError, match="no Docker engine answers"):
        await DockerEngine("lab").names()
