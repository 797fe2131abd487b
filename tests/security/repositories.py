"""Repositories that try to run a program, or to read outside of themselves, when somebody lists, packs or scans them.

Each builder gets a `Trap` and an empty directory to make its repository in. The program that a trap wants to run
writes a file; what a trap wants to read is a secret beside the repository. A builder says no word about what should
happen: `test_repositories` does.
"""

import os
import secrets
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

HOOKS = (
    "applypatch-msg post-checkout post-commit post-index-change post-merge post-rewrite pre-auto-gc pre-commit"
    " pre-push pre-rebase prepare-commit-msg query-watchman reference-transaction update fsmonitor-watchman"
)


def git(root: Path, *arguments: str) -> bytes:
    """Runs git as it would run for a careless person, but for who that is."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "t", f"GIT_{role}_EMAIL": "t@example.org"}
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True).stdout


@dataclass
class Trap:
    """What a repository wants: its program run, or the secret beside it read."""

    place: Path

    def __post_init__(self) -> None:
        self.secret = f"outside-{secrets.token_hex(16)}"
        self.ran = self.place / "ran"
        self.outside = self.place / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "secret").write_text(self.secret)
        self.program = self.place / "program.sh"
        self.program.write_text(f"#!/bin/sh\ntouch {self.ran}\ncat\n")
        self.program.chmod(0o755)
        self.theirs = committed(self.place / "theirs", {"theirs.txt": self.secret})


def committed(root: Path, files: dict[str, str]) -> Path:
    """An honest repository with one commit."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q")
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def plain(root: Path) -> Path:
    return committed(root, {"a.txt": "a\n", "b.py": "print('b')\n"})


def watcher(trap: Trap, root: Path) -> None:
    """Asks git to ask a program what has changed."""
    git(plain(root), "config", "core.fsmonitor", str(trap.program))


def filters(trap: Trap, root: Path) -> None:
    """Attributes that send each file through a program."""
    plain(root)
    for key in ("filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.textconv", "merge.x.driver"):
        git(root, "config", key, str(trap.program))
    (root / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    (root / "a.txt").write_text("changed\n")


def programs(trap: Trap, root: Path) -> None:
    """Every program that a configuration can name."""
    plain(root)
    named = "core.sshCommand core.editor core.pager core.askPass diff.external gpg.program sequence.editor"
    for key in (*named.split(), "credential.helper", "uploadpack.packObjectsHook", "alias.status", "alias.ls-files"):
        git(root, "config", key, f"!{trap.program}" if key.startswith("alias") else str(trap.program))
    git(root, "config", "core.hooksPath", str(trap.place))


def hooks(trap: Trap, root: Path) -> None:
    """Every hook there is."""
    plain(root)
    for name in HOOKS.split():
        shutil.copy(trap.program, root / ".git" / "hooks" / name)


def included(trap: Trap, root: Path) -> None:
    """A configuration that goes on outside."""
    plain(root)
    (trap.outside / "config").write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
    git(root, "config", "include.path", str(trap.outside / "config"))


def work_tree_elsewhere(trap: Trap, root: Path) -> None:
    """A configuration that says that the files are somewhere else."""
    git(plain(root), "config", "core.worktree", str(trap.outside))


def pointer(trap: Trap, root: Path) -> None:
    """A `.git` file that points to another's repository."""
    root.mkdir()
    (root / "a.txt").write_text("a\n")
    (root / ".git").write_text(f"gitdir: {trap.theirs / '.git'}\n")


def relative_pointer(trap: Trap, root: Path) -> None:
    """The same, by a path that climbs."""
    root.mkdir()
    (root / "a.txt").write_text("a\n")
    (root / ".git").write_text(f"gitdir: {os.path.relpath(trap.theirs / '.git', root)}\n")


def work_tree_of_theirs(trap: Trap, root: Path) -> None:
    """A work tree that somebody else's repository knows."""
    git(trap.theirs, "worktree", "add", "-q", str(root))
    (root / "theirs.txt").write_text("mine now\n")


def common_directory(trap: Trap, root: Path) -> None:
    """A git directory whose objects and refs are said to be somebody else's."""
    plain(root)
    (root / ".git" / "commondir").write_text(f"{trap.theirs / '.git'}\n")


def alternates(trap: Trap, root: Path) -> None:
    """Objects of somebody else's, and a commit that needs them."""
    plain(root)
    (root / ".git" / "objects" / "info" / "alternates").write_text(f"{trap.theirs / '.git' / 'objects'}\n")
    (root / ".git" / "refs" / "heads" / "main").write_bytes(git(trap.theirs, "rev-parse", "HEAD"))


def linked_git(trap: Trap, root: Path) -> None:
    """`.git` is a link to another's."""
    root.mkdir()
    (root / "a.txt").write_text("a\n")
    (root / ".git").symlink_to(trap.theirs / ".git")


def linked_objects(trap: Trap, root: Path) -> None:
    """Its objects and refs are links to another's."""
    plain(root)
    for name in ("objects", "refs"):
        shutil.rmtree(root / ".git" / name)
        (root / ".git" / name).symlink_to(trap.theirs / ".git" / name)


def linked_head(trap: Trap, root: Path) -> None:
    """HEAD, a ref, the index and the ignore files are links to the secret."""
    plain(root)
    for name in (".git/HEAD", ".git/refs/heads/main", ".git/packed-refs", ".git/info/exclude", ".git/index"):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(trap.outside / "secret")


def linked_files(trap: Trap, root: Path) -> None:
    """Tracked links to a file and a directory outside."""
    plain(root)
    (root / "link").symlink_to(trap.outside / "secret")
    (root / "folder").symlink_to(trap.outside)
    git(root, "add", "-A")


def climbing_links(trap: Trap, root: Path) -> None:
    """The same, by paths that climb."""
    plain(root)
    (root / "link").symlink_to("../../outside/secret")


def index_of_lies(trap: Trap, root: Path) -> None:
    """An index that tracks what lies outside, by paths that climb and by absolute ones."""
    plain(root)
    names = ("../outside/secret", str(trap.outside / "secret"), ".git/config", "a/../../outside/secret")
    body = b"DIRC" + struct.pack(">II", 2, len(names))
    for name in sorted(each.encode() for each in names):
        entry = struct.pack(">10I20sH", *[0] * 6, 0o100644, 0, 0, 1, b"\0" * 20, len(name)) + name
        body += entry + b"\0" * (8 - len(entry) % 8)
    (root / ".git" / "index").write_bytes(body + sha1(body).digest())


def tracked_below_a_link(trap: Trap, root: Path) -> None:
    """A tracked directory that became a link to the outside."""
    committed(root, {"a.txt": "a\n", "folder/secret": "harmless\n"})
    shutil.rmtree(root / "folder")
    (root / "folder").symlink_to(trap.outside)


def submodule(trap: Trap, root: Path) -> None:
    """A submodule whose update is a command, whose address is a command, and whose place is outside."""
    plain(root)
    (root / ".gitmodules").write_text(
        f'[submodule "x"]\n\tpath = x\n\turl = ext::{trap.program}\n\tupdate = !{trap.program}\n'
        f'[submodule "../../outside"]\n\tpath = ../../outside\n\turl = -u./program.sh\n'
    )
    (root / "x").mkdir()
    (root / "x" / ".git").write_text(f"gitdir: {trap.theirs / '.git'}\n")
    (root / "x" / "y.txt").write_text("y\n")


def bare_within(trap: Trap, root: Path) -> None:
    """A bare repository among the files, which git would take for its own when somebody stands in it."""
    plain(root)
    inner = root / "docs"
    inner.mkdir()
    git(inner, "init", "-q", "--bare")
    git(inner, "config", "core.fsmonitor", str(trap.program))
    (inner / "a.txt").write_text("a\n")


def nested(trap: Trap, root: Path) -> None:
    """A hostile repository within an honest one."""
    plain(root)
    watcher(trap, root / "vendor")
    alternates(trap, root / "other")


def promisor(trap: Trap, root: Path) -> None:
    """Objects that are missing here, and a program that is said to bring them."""
    plain(root)
    for key, value in (
        ("extensions.partialClone", "origin"),
        ("core.repositoryFormatVersion", "1"),
        ("remote.origin.url", f"ext::{trap.program}"),
        ("remote.origin.promisor", "true"),
        ("protocol.ext.allow", "always"),
    ):
        git(root, "config", key, value)
    shutil.rmtree(root / ".git" / "objects")
    (root / ".git" / "objects").mkdir()


def pipes(trap: Trap, root: Path) -> None:
    """Pipes where files are expected: who opens one waits for ever."""
    plain(root)
    for name in (".git/index", ".git/HEAD", ".git/info/exclude", ".gitignore"):
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name)


def settings_of_tools(trap: Trap, root: Path) -> None:
    """Files by which scanners are told what to do, and where to look."""
    committed(
        root,
        {
            "a.sh": "#!/bin/sh\n. /etc/hostname\necho $x\n",
            "b.py": "import subprocess\nsubprocess.call('x', shell=True)\n",
            ".shellcheckrc": "external-sources=true\nsource-path=/\nenable=all\n",
            ".bandit": f"[bandit]\ntargets: {trap.outside}\nskips: B602\n",
            "pyproject.toml": f'[tool.bandit]\nexclude_dirs = ["b.py"]\ntargets = ["{trap.outside}"]\n',
            "setup.py": f"import os\nos.system('{trap.program}')\n",
            "conftest.py": f"import os\nos.system('{trap.program}')\n",
            "sitecustomize.py": f"import os\nos.system('{trap.program}')\n",
            "bandit.py": f"import os\nos.system('{trap.program}')\n",
            "a.pth": f"import os; os.system('{trap.program}')\n",
            ".gitleaks.toml": "[extend]\npath = '/etc/passwd'\n[allowlist]\npaths = ['''.*''']\n",
            ".betterleaks.toml": "[allowlist]\npaths = ['''.*''']\n",
        },
    )


REPOSITORIES: dict[str, Callable[[Trap, Path], None]] = {
    each.__name__: each
    for each in (
        watcher, filters, programs, hooks, included, work_tree_elsewhere, pointer, relative_pointer,
        work_tree_of_theirs, common_directory, alternates, linked_git, linked_objects, linked_head, linked_files,
        climbing_links, index_of_lies, tracked_below_a_link, submodule, bare_within, nested, promisor, pipes,
        settings_of_tools,
    )
}  # fmt: skip
