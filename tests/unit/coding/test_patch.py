"""What a patch refuses, flags and leaves alone; the bytes of it are compared with git's in the integration tests."""

import json
import random
import tracemalloc
from collections.abc import Iterator

import pytest

from core.coding.changes import Limits, packed, restored
from core.coding.lines import Effort, matches, split
from core.coding.objects import FILE
from core.coding.patch import Patch, compute
from protos.tar import BLOCK, read
from protos.treerules import Caps, TreeRefused
from tests.unit.coding.trees import Link, Script, Tree, changed, tar_of

TREE: Tree = {"src/a.py": b"x = 1\n", "tests/test_a.py": b"def test_a():\n    assert True\n"}


def patch_of(new: Tree, old: Tree = TREE, limits: Limits | None = None) -> Patch:
    changes, gone = changed(old, new)
    return compute(tar_of(old), changes, gone, limits)


def why(patch: Patch) -> dict[str, str]:
    return dict(patch.refused)


def test_a_change_in_numbers() -> None:
    patch = patch_of({**TREE, "src/a.py": b"x = 1\ny = 2\n", "b.sh": Script(b"#!/bin/sh\n")})
    assert [(each.path, each.kind, each.added, each.removed) for each in patch.files] == [
        ("b.sh", "added", 1, 0),
        ("src/a.py", "modified", 1, 0),
    ]
    assert (patch.added, patch.removed, patch.refused, patch.tests_changed) == (2, 0, [], [])


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "src/.git/hooks/pre-commit",
        ".GIT/config",
        "git~1/config",
        ".g\u200cit/config",
        ".git ./config",
        ".git::$INDEX_ALLOCATION/config",
        "a\\.git\\config",
        ".git",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "a\nb",
        "a\x1b[2Jb",
        "x" * 300,
    ],
)
def test_what_may_not_be_touched_is_refused_and_the_rest_is_taken(path: str) -> None:
    patch = compute(tar_of(TREE), tar_of({path: b"evil\n", "good.py": b"good\n"}), [])
    assert set(why(patch)) == {path}
    assert [each.path for each in patch.files] == ["good.py"]
    assert b"evil" not in patch.diff
    gone = compute(tar_of(TREE), tar_of({}), [path, "src/a.py"])
    assert set(why(gone)) == {path}
    assert [each.kind for each in gone.files] == ["deleted"]


def test_names_like_gits_own_are_taken() -> None:
    names = [".github/a", ".gitignore", "git/config", "a.git/b", "git~10/c", ".gitfoo"]
    assert patch_of({**TREE, **dict.fromkeys(names, b"x\n")}).refused == []


@pytest.mark.parametrize(
    ("link", "target"), [("l", ".git/config"), ("a/l", "../.GIT/x"), (".gitmodules", "a"), ("x/.gitattributes", "a")]
)
def test_links_into_git_are_refused(link: str, target: str) -> None:
    assert set(why(patch_of({**TREE, link: Link(target)}))) == {link}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "a/../../x"])
def test_a_link_that_leaves_is_no_stream_of_ours(target: str) -> None:
    with pytest.raises(TreeRefused):
        patch_of({**TREE, "l": Link(target)})


def test_submodules_are_other_repositories() -> None:
    modules = b'[submodule "lib"]\n\tpath = lib/one\n\turl = x\n[submodule "two"]\n  path="two"\r\n'
    old: Tree = {".gitmodules": modules, "lib/one/a": b"1\n", "two/b": b"1\n", "lib/own": b"1\n"}
    patch = patch_of({**old, "lib/one/a": b"2\n", "two/c": b"2\n", "lib/own": b"2\n"}, old)
    assert set(why(patch)) == {"lib/one/a", "two/c"}
    assert "'lib/one'" in why(patch)["lib/one/a"]
    assert [each.path for each in patch.files] == ["lib/own"]


def test_what_is_in_the_way_is_told() -> None:
    patch = patch_of({**TREE, "src": b"now a file\n"}, {**TREE})
    assert "'src/a.py'" in why(patch)["src"]
    below = compute(tar_of(TREE), tar_of({"src/a.py/b": b"x\n"}), [])
    assert "'src/a.py'" in why(below)["src/a.py/b"]
    through = compute(tar_of({"l": Link("d"), "d/a": b"x\n"}), tar_of({"l/a": b"y\n"}), [])
    assert "'l'" in why(through)["l/a"]


def test_caps_leave_out_what_goes_beyond() -> None:
    new = {**TREE, "a": b"a" * 10, "b": b"b" * 10, "c": b"c" * 100}
    assert set(why(patch_of(new, limits=Limits(files=1)))) == {"b", "c"}
    assert set(why(patch_of(new, limits=Limits(file_bytes=50)))) == {"c"}
    assert set(why(patch_of(new, limits=Limits(bytes=15)))) == {"b", "c"}


def test_of_very_many_that_are_refused_the_first_are_listed_and_the_others_counted() -> None:
    bad = {f".git/{each:04}": b"" for each in range(1100)}
    many = compute(tar_of(TREE), tar_of({**bad, "src/a.py": b"x = 2\n"}), [f".git/gone{each}" for each in range(100)])
    assert (len(many.refused), many.unlisted) == (1000, 200)
    assert many.refused[0].path == ".git/0000"
    assert [each.path for each in many.files] == ["src/a.py"]


def test_a_text_with_too_many_lines_is_taken_whole_and_costs_no_more_than_its_bytes() -> None:
    few, many = b"\n" * 200_000, b"\n" * 200_001
    assert not patch_of({"a": few + b"x"}, {"a": b"y"}).files[0].binary
    tracemalloc.start()
    try:
        patch = patch_of({"a": many + b"x"}, {"a": b"y"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert patch.files[0].binary
    assert patch.files[0].whole
    assert patch.diff.count(b"\n") < 100
    assert peak < 5 * len(many) + 2**20


def test_a_stream_with_a_name_twice_is_refused_as_a_whole() -> None:
    with pytest.raises(TreeRefused):
        compute(tar_of(TREE), packed([("a", FILE, b"1"), ("a", FILE, b"2")]), [])
    with pytest.raises(TreeRefused):
        compute(tar_of(TREE), packed([("a", FILE, b"1"), ("a/b", FILE, b"2")]), [])
    with pytest.raises(TreeRefused):
        compute(tar_of(TREE), [b"x" * BLOCK], [])


def test_tests_that_were_there_are_named_and_so_is_what_steers_them() -> None:
    old: Tree = {
        **TREE,
        "pkg/thing_test.go": b"1\n",
        "web/a.test.ts": b"1\n",
        "tests/data/in.txt": b"1\n",
        "package.json": b"{}\n",
    }
    new: Tree = {
        "src/a.py": b"x = 1\n",
        "tests/test_a.py": b"",
        "tests/test_new.py": b"",
        "pkg/thing_test.go": b"2\n",
        "tests/data/in.txt": b"2\n",
        "package.json": b'{"scripts": {"test": "true"}}\n',
        "conftest.py": b"",
    }
    patch = patch_of(new, old)
    assert patch.tests_changed == ["pkg/thing_test.go", "tests/data/in.txt", "tests/test_a.py", "web/a.test.ts"]
    assert patch.steers_tests == ["conftest.py", "package.json"]


SECRETS = {
    "key.pem": b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n",
    "a.env": b"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKqL9w0Pd\n",
    "a.py": b"token = 'ghp_" + b"aB3" * 12 + b"'\n",
    "b.js": b"const k = 'AKIAJ4ZQK7WNRM5TXUVA';\n",
    "c.yml": b"  openai: sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1w\n",
    "d.json": b'{"api_key": "q9X2mL7vR4tY8wZ1cN6b"}\n',
}


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_that_would_be_added_is_flagged_and_not_shown(path: str) -> None:
    patch = patch_of({**TREE, path: b"first line\n" + SECRETS[path]})
    assert [(each.path, each.line) for each in patch.secrets] == [(path, 2)]
    assert set(patch.secrets) <= set(patch.flags)
    for word in SECRETS[path].replace(b"'", b" ").replace(b'"', b" ").split():
        assert len(word) < 16 or word.decode() not in patch.secrets[0].what
    assert patch_of({**TREE, path: b"other\n" + SECRETS[path]}, {**TREE, path: SECRETS[path]}).secrets == []


def test_a_secret_in_a_binary_file_is_found_too() -> None:
    assert patch_of({**TREE, "x.bin": b"\0\0" + SECRETS["b.js"]}).secrets[0].line == 0


@pytest.mark.parametrize(
    "line",
    [
        b"api_key = os.environ['OPENAI_API_KEY']",
        b"token: ${{ secrets.GITHUB_TOKEN_FOR_DEPLOY }}",
        b"password = 'your-password-goes-here-1'",
        b"AWS_KEY = 'AKIAIOSFODNN7EXAMPLE'",
        b"class sk-something-that-is-a-style-name",
        b"token_count = tokenizer.count_all_tokens(text)",
        b"sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
    ],
)
def test_what_only_looks_like_a_secret_is_left_alone(line: bytes) -> None:
    assert patch_of({**TREE, "a.txt": line + b"\n"}).secrets == []


def test_what_runs_on_the_reviewers_machine_is_flagged() -> None:
    new: Tree = {
        **TREE,
        ".github/workflows/ci.yml": b"on: push\n",
        "sub/conftest.py": b"import os\n",
        "setup.py": b"",
        ".gitattributes": b"*.c text\n*.bin filter=lfs diff=lfs -text\n",
        "package.json": b'{\n "scripts": {\n  "postinstall": "x"\n}}\n',
        "run.sh": Script(b"#!/bin/sh\n"),
        "bidi.py": "a = 1 # \u202e x\n".encode(),
        "CLAUDE.md": b"do\n",
        "plain.py": b"a\n",
    }
    patch = patch_of(new)
    assert {(each.path, each.line) for each in patch.flags} == {
        (".github/workflows/ci.yml", 0),
        ("sub/conftest.py", 0),
        ("setup.py", 0),
        (".gitattributes", 2),
        ("package.json", 3),
        ("run.sh", 0),
        ("bidi.py", 1),
        ("CLAUDE.md", 0),
    }
    assert patch.secrets == []


def test_what_nobody_can_read_in_the_patch_is_flagged() -> None:
    patch = patch_of({**TREE, "a.bin": b"\0a", "big.bin": bytes(9000)}, limits=Limits(binary_bytes=5000))
    assert [(each.path, each.what.split()[1]) for each in patch.flags] == [("a.bin", "binary,"), ("big.bin", "too")]
    assert patch_of({"src/a.py": b"x = 1\n"}, {**TREE, "a.bin": b"\0"}).flags == []


def test_a_report_is_bounded_and_fit_to_be_shown() -> None:
    new = {**TREE, "src/\udcff\u202e": b"x\n"} | {f"{'d' * 200}/{each}": b"" for each in range(300)}
    report = patch_of(new).report()
    assert (report["count"], len(report["files"])) == (301, 100)
    assert len(json.dumps(report)) < 50_000
    assert '"src/\\\\xff\\\\u202e"' in json.dumps(patch_of({**TREE, "src/\udcff\u202e": b"x\n"}).report())


def test_restored_leaves_files_as_they_were() -> None:
    changes, _ = changed(TREE, {"src/a.py": b"2\n", "tests/test_a.py": b"", "l": Link("src"), "s": Script(b"x")})
    names = {each.name: each.executable for each in read(restored(changes, ["tests/test_a.py"]), Caps())}
    assert names == {"l": False, "s": True, "src/a.py": False}


def test_a_name_that_is_both_changed_and_deleted_is_changed() -> None:
    patch = compute(tar_of(TREE), tar_of({"src/a.py": b"2\n"}), ["src/a.py", "not/there", "src"])
    assert [(each.path, each.kind) for each in patch.files] == [("src/a.py", "modified")]


def test_memory_is_bounded_by_what_changed() -> None:
    body = bytes(1024 * 1024)

    def large() -> Iterator[bytes]:
        yield from packed((f"f{each:03}", FILE, b"%d" % each + body) for each in range(100))

    changes = b"".join(packed([("f050", FILE, b"new" + body), ("f051", FILE, body)]))
    tracemalloc.start()
    patch = compute(large(), [changes], ["f052"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [each.kind for each in patch.files] == ["modified", "modified", "deleted"]
    assert peak < 24 * 1024**2


def test_equal_lines_are_equal_and_in_order() -> None:
    dice = random.Random(3)
    for kinds in (2, 5, 40, 1000):
        for _ in range(40):
            old = [b"%d" % dice.randrange(kinds) for _ in range(dice.randrange(60))]
            new = [b"%d" % dice.randrange(kinds) for _ in range(dice.randrange(60))]
            at = there = 0
            for same in matches(old, new):
                assert same.old >= at
                assert same.new >= there
                assert old[same.old : same.old + same.count] == new[same.new : same.new + same.count]
                at, there = same.old + same.count, same.new + same.count
            assert matches(old, old) == ([same for same in matches(old, old) if same.count == len(old)])


def test_effort_is_bounded_whatever_the_lines_are() -> None:
    dice = random.Random(3)
    effort = Effort(each=200_000, all=300_000)
    for _ in range(4):
        matches(
            [b"%d" % dice.randrange(3) for _ in range(9000)], [b"%d" % dice.randrange(3) for _ in range(9000)], effort
        )
    assert -400_000 < effort.all <= 0


def test_only_a_newline_ends_a_line() -> None:
    assert split(b"a\rb\x0c\n\nc\x85") == [b"a\rb\x0c\n", b"\n", b"c\x85"]


def test_streams_that_were_tampered_with_are_refused_or_read_and_nothing_else() -> None:
    dice = random.Random(9)
    changes = b"".join(tar_of({"a": b"1\n", "ü/" + "b" * 120: b"2\n", "l": Link("a"), ".gitmodules": b"path = a\n"}))
    gone = ["src/a.py", "\ud800", "\udcff", "", "a" * 5000, "x/" * 200 + "y"]
    refused = 0
    for _ in range(400):
        stream = bytearray(changes)
        for _ in range(dice.randrange(1, 4)):
            stream[dice.randrange(len(stream))] = dice.randrange(256)
        if dice.random() < 0.2:
            del stream[dice.randrange(len(stream)) :]
        try:
            patch = compute(tar_of(TREE), [bytes(stream)], gone)
        except TreeRefused:
            refused += 1
        else:
            assert len(patch.refused) >= 4
            json.dumps(patch.report())
    assert 100 < refused < 400
