"""The git repository that an agent finds in its tree: made when git is first needed, of the source as it came.

Its first commit is not made of the tree as it is by then, but of the source, read a second time: so `git diff` is
right however late it is asked, and whoever never asks pays nothing. git's own importer writes one pack from a stream;
nothing of it touches the tree.

The history is the sandbox's own and stays there. The core computes the patch from the files.
"""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from anyio import Lock, from_thread, to_thread

from periphery.hopper.printable import shortened
from periphery.hopper.shell import Ran, Shell
from periphery.hopper.workspace import CAPS, is_git
from protos.tree import Member, members

IDENTITY = {
    "GIT_AUTHOR_NAME": "Hopper",
    "GIT_AUTHOR_EMAIL": "hopper@madlab.invalid",
    "GIT_COMMITTER_NAME": "Hopper",
    "GIT_COMMITTER_EMAIL": "hopper@madlab.invalid",
}
# No file of the machine or of the tree has a say: not the system's configuration, no hook, no watcher, no signing.
SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "init.defaultBranch": "main",
    "advice.detachedHead": "false",
    "safe.directory": "*",
}
ENVIRONMENT = {
    **IDENTITY,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": str(len(SETTINGS)),
    **{f"GIT_CONFIG_KEY_{index}": name for index, name in enumerate(SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{index}": value for index, value in enumerate(SETTINGS.values())},
}
GIT_S = 120.0
OUTPUT_CHARACTERS = 24_000


class Repository:
    """The repository below the shell's root."""

    def __init__(self, shell: Shell, source: Callable[[], AsyncIterator[bytes]]) -> None:
        self._shell = shell
        self._source = source
        self._lock = Lock()
        self._made: bool | None = None

    async def ready(self) -> bool:
        """Makes the repository if it is not there yet; False where git is missing or fails."""
        async with self._lock:
            if self._made is None:
                self._made = await self._make()
            return self._made

    async def status(self) -> str:
        """What is changed, as `git status --short` tells it."""
        return await self._say("status", "--short", "--untracked-files=all", empty="Nothing is changed.")

    async def diff(self, path: str = "") -> str:
        """What is changed against the source, new files too."""
        if not await self.ready():
            return MISSING
        await self._git("add", "--intent-to-add", "--", ".")
        root = await self._git("rev-list", "--max-parents=0", "HEAD")
        words = ["diff", "--no-ext-diff", "--no-textconv", root.output.strip() or "HEAD", "--"]
        return await self._say(*words, path or ".", empty="No difference.")

    async def commit(self, message: str) -> str:
        """Commits everything that is changed and not ignored."""
        if not await self.ready():
            return MISSING
        await self._git("add", "--all", "--", ".")
        return await self._say("commit", "--quiet", "--no-verify", "-m", message, empty="Committed.")

    async def ignored(self, names: list[str]) -> set[str]:
        """Which of `names` the tree's own `.gitignore` files ignore; none where git is missing."""
        if not names or not await self._started():
            return set()
        asked = b"\0".join(each.encode("utf-8", "surrogateescape") for each in names)
        root = self._shell.root

        def check() -> bytes:
            command = ["git", "check-ignore", "--no-index", "-z", "--stdin"]
            environment = {**self._shell.variables(), **ENVIRONMENT}
            try:
                done = subprocess.run(
                    command, cwd=root, env=environment, input=asked, capture_output=True, check=False, timeout=GIT_S
                )
            except (OSError, subprocess.SubprocessError):
                return b""
            return done.stdout

        found = await to_thread.run_sync(check)
        return {each.decode("utf-8", "surrogateescape") for each in found.split(b"\0") if each}

    async def _say(self, *words: str, empty: str) -> str:
        if not await self.ready():
            return MISSING
        done = await self._git(*words)
        said = shortened(done.output.strip("\n"), OUTPUT_CHARACTERS)
        return (said or empty) if done.passed else f"git: {done.ending}\n{said}"

    async def _git(self, *words: str) -> Ran:
        command = ["git", "--no-pager", *words]
        return await self._shell.run(command, seconds=GIT_S, environment=ENVIRONMENT, listed=False)

    async def _started(self) -> bool:
        """Whether there is a repository, be it an empty one."""
        if (self._shell.root / ".git").is_dir():
            return True
        try:
            return (await self._git("init", "--quiet")).passed
        except OSError:
            return False

    async def _make(self) -> bool:
        if not await self._started():
            return False

        environment = {**self._shell.variables(), **ENVIRONMENT}
        async with aclosing(self._source()) as source:  # type: ignore[type-var]

            def chunks() -> Iterator[bytes]:
                while (chunk := from_thread.run(_next, source)) is not None:
                    yield chunk

            def feed() -> bool:
                return _imported(self._shell.root, environment, members(chunks(), CAPS))

            if not await to_thread.run_sync(feed):
                return False
        return (await self._git("read-tree", "HEAD")).passed


MISSING = "There is no git here. What you changed is found without it."


async def _next(source: AsyncIterator[bytes]) -> bytes | None:
    return await anext(source, None)


def _imported(root: Path, environment: dict[str, str], tree: Iterator[Member]) -> bool:
    """Writes the first commit through `git fast-import`."""
    command = ["git", "-c", "core.compression=0", "fast-import", "--quiet", "--depth=0", "--done"]
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(
                b"commit refs/heads/main\ncommitter Hopper <hopper@madlab.invalid> 0 +0000\ndata 14\nThe repository\n"
            )
            for member in tree:
                for piece in _entry(member):
                    process.stdin.write(piece)
            process.stdin.write(b"done\n")
            process.stdin.close()
        except BrokenPipeError:
            pass
        return process.wait(GIT_S) == 0


def _entry(member: Member) -> Iterator[bytes]:
    """One file or link in the importer's words."""
    if member.kind == "directory" or is_git(member.name):
        return
    raw = member.name.encode("utf-8", "surrogateescape").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    target = member.target.encode("utf-8", "surrogateescape")
    mode = b"120000" if member.kind == "link" else b"100755" if member.executable else b"100644"
    yield b'M %s inline "%s"\ndata %d\n' % (mode, raw, len(target) or member.size)
    yield target
    yield from member.chunks
    yield b"\n"
