"""What a patch may not carry, and what a person should look at before they take it.

Refused is what would reach git itself or another repository: whatever is called `.git`, or would be on a file system
that folds names (upper and lower case, NTFS's short names, streams and trailing dots, HFS+'s ignored characters; see
CVE-2014-9390, CVE-2019-1352 and -1353), and what lies in a submodule. Everything else is taken, and flagged: files that
run or steer programs on the machine of whoever checks the patch out, and text that is not what it looks like.
"""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import NamedTuple

from protos.treerules import Caps, TreeRefused, escaped, parts_of

IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])  # by HFS+
PLAIN_FILES = (".gitmodules", ".gitattributes", ".gitignore", ".mailmap")  # git reads them through no link
TEST_DIRECTORIES = frozenset({"test", "tests", "spec", "specs", "__tests__", "testdata", "testing", "e2e"})
TEST_FILES = (
    *("test_*.py", "*_test.py", "tests.py", "conftest.py", "*_test.go", "*.test.?s", "*.test.?sx", "*.test.?js"),
    *("*.spec.?s", "*.spec.?sx", "*.spec.?js", "*_spec.rb", "test_*.rb", "*_test.rb", "*test.java", "*tests.java"),
    *("*test.kt", "*tests.cs", "*test.php", "test_*.c", "*_test.c", "test_*.cpp", "*_test.cc", "*_test.cpp", "*.bats"),
)
STEERING = (  # which tests run, and what counts as passed; patterns for the whole path
    *("*conftest.py", "*pytest.ini", "*.pytest.ini", "*tox.ini", "*setup.cfg", "*pyproject.toml", "*noxfile.py"),
    *("*package.json", "*jest.config.*", "*vitest.config.*", "*.mocharc*", "*karma.conf.*", "*babel.config.*"),
    *("*makefile", "*gnumakefile", "*.mk", "*cmakelists.txt", "*ctesttestfile.cmake", "*meson.build", "*justfile"),
    *("*cargo.toml", "*build.rs", ".cargo/*", "*go.mod", "*pom.xml", "*build.gradle*", "*rakefile", ".rspec"),
    *("*sitecustomize.py", "*usercustomize.py", "*.pth", "*.coveragerc", "test.sh", "run_tests*", "runtests*"),
)
RUNNING = (  # patterns for the whole path, in lower case, and what such a file does
    (".github/workflows/*", "is a CI workflow"),
    (".github/actions/*", "is part of CI workflows"),
    *((each, "is a CI workflow") for each in (".gitlab-ci*", ".circleci/*", "jenkinsfile*", "azure-pipelines*")),
    *((each, "is a CI workflow") for each in (".travis.yml", ".drone.yml", ".woodpecker*", "bitbucket-pipelines.yml")),
    *((each, "is a CI workflow") for each in (".gitea/*", ".forgejo/*", ".buildkite/*", ".ci/*", "appveyor.yml")),
    *((each, "runs when git does something") for each in (".husky/*", ".githooks/*", "*hooks/pre-*", "*hooks/post-*")),
    *((each, "runs on a commit") for each in (".pre-commit-config.y*ml", "lefthook.y*ml", "*lintstaged*")),
    *((each, "runs whenever tests are run") for each in ("*conftest.py", "*jest.setup.*", "*vitest.setup.*")),
    *((each, "runs whenever Python starts") for each in ("*sitecustomize.py", "*usercustomize.py", "*.pth")),
    *((each, "runs when the package is built or installed") for each in ("*setup.py", "*build.rs", "*binding.gyp")),
    *((each, "chooses where packages come from") for each in ("*.npmrc", "*.yarnrc*", "*pip.conf", ".cargo/config*")),
    *((each, "runs when the directory is entered") for each in ("*.envrc", "*.mise.toml", "*.tool-versions")),
    *((each, "an editor acts on it") for each in (".vscode/*", ".idea/*", ".devcontainer/*", "*.code-workspace")),
    *((each, "instructs coding agents") for each in ("*claude.md", "*agents.md", ".cursor*", ".claude/*", "*mcp.json")),
    (".gitmodules", "names repositories that git fetches"),
)
INSTALLING = re.compile(rb'"(pre|post)?install"\s*:|"prepare"\s*:')
FILTER = re.compile(rb"(?:^|\s)(filter|diff|merge)=([^\s]+)")


class Flag(NamedTuple):
    """Something that a person should look at. `line` counts from 1 in the new file; 0 is the file as a whole."""

    path: str
    line: int
    what: str  # a sentence with the file as its subject


def unfit(path: str, submodules: Collection[str] = (), caps: Caps | None = None) -> str:
    """Why a patch may not touch this path; empty where it may."""
    try:
        parts = parts_of(path, caps or Caps())
    except TreeRefused as error:
        return f"{error.value}; {error.cap}"
    if any(is_git(each) for each in parts):
        return "it is git's own place, or would be on some file system"
    above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    within = next((each for each in above if each in submodules), None)
    if within is not None:
        return f"it lies in the submodule '{escaped(within)}', which is another repository"
    return ""


def unfit_link(path: str, target: str) -> str:
    """Why a patch may not bring this link, which stays inside the tree; empty where it may."""
    if any(is_git(each) for each in target.split("/")):
        return f"it links to git's own place: '{escaped(target)}'"
    if folded(path.rsplit("/", 1)[-1]) in PLAIN_FILES:
        return "git reads it, and it must not be a link"
    return ""


def is_git(name: str) -> bool:
    """Whether some file system takes one part of a path for `.git`."""
    return any(folded(each) in (".git", "git~1") for each in name.split("\\"))


def folded(name: str) -> str:
    """A name as the most forgiving file systems see it."""
    return name.translate(IGNORED).split(":")[0].rstrip(". ").casefold()


def is_test(path: str) -> bool:
    """Whether a file is part of the tests, by its name or by the directory it lies in."""
    *directories, name = path.casefold().split("/")
    return not TEST_DIRECTORIES.isdisjoint(directories) or any(fnmatchcase(name, each) for each in TEST_FILES)


def steers_tests(path: str) -> bool:
    """Whether a file can decide which tests run, or what counts as passed."""
    return any(fnmatchcase(path.casefold(), each) for each in STEERING)


def submodules_of(gitmodules: bytes) -> frozenset[str]:
    """The paths that a `.gitmodules` file names."""
    found = re.findall(rb'^[ \t]*path[ \t]*=[ \t]*"?([^"\r\n]+?)"?[ \t]*\r?$', gitmodules, re.MULTILINE)
    return frozenset(each.decode("utf-8", "surrogateescape").strip("/") for each in found)


def flags_of_path(path: str) -> list[Flag]:
    """What is to be said of a file because of its name."""
    name = path.casefold()
    return [Flag(path, 0, what) for pattern, what in RUNNING if fnmatchcase(name, pattern)][:1]


def flags_of_line(path: str, number: int, line: bytes) -> list[Flag]:
    """What is to be said of one line that a patch adds."""
    found = []
    if b"\xe2\x80" in line or b"\xe2\x81" in line:
        text = line.decode("utf-8", "replace")
        if any("\u202a" <= each <= "\u202e" or "\u2066" <= each <= "\u2069" for each in text):
            found.append(Flag(path, number, "has characters that reorder what is seen"))
    name = path.rsplit("/", 1)[-1]
    if name == ".gitattributes":
        found += [
            Flag(path, number, f"has git run the {each[0].decode()} driver '{escaped(_text(each[1]), 60)}'")
            for each in FILTER.findall(line.partition(b"#")[0])
            if each[1] not in (b"text", b"binary", b"union", b"ours")
        ]
    if name == "package.json" and INSTALLING.search(line):
        found.append(Flag(path, number, "runs a program when the package is installed"))
    return found


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
