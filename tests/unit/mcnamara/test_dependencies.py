"""Lock files, versions, and the advisories that hold for them."""
# ruff: noqa: E501  a table is read one case a line

import json
from pathlib import Path

import pytest

from periphery.mcnamara import advisories
from periphery.mcnamara.inventory import File
from periphery.mcnamara.lockfiles import dependencies, is_lock_file
from periphery.mcnamara.scanner import drive
from periphery.mcnamara.scanners.dependencies import Dependencies
from periphery.mcnamara.versions import affected


def record(id: str, ecosystem: str, name: str, *events: dict[str, str], **more: object) -> bytes:
    kind = "SEMVER" if ecosystem in ("npm", "Go", "crates.io") else "ECOSYSTEM"
    body = {"package": {"ecosystem": ecosystem, "name": name}, "ranges": [{"type": kind, "events": list(events)}]}
    body["versions"] = more.pop("versions", [])  # type: ignore[assignment]
    return json.dumps(
        {"id": id, "modified": "2026-10-01T00:00:00Z", "summary": id, "affected": [body], **more}
    ).encode()


@pytest.mark.parametrize(
    ("ecosystem", "version", "events", "fixed"),
    [
        ("PyPI", "1.10", [{"introduced": "0"}, {"fixed": "1.9"}], None),
        ("PyPI", "1.9rc1", [{"introduced": "0"}, {"fixed": "1.9"}], "1.9"),
        ("PyPI", "2.0.post1", [{"introduced": "1.0"}, {"last_affected": "2.0"}], None),
        ("PyPI", "1!1.0", [{"introduced": "0"}, {"fixed": "9"}], None),
        ("npm", "1.2.3", [{"introduced": "0"}, {"fixed": "1.2.3"}], None),
        ("npm", "1.2.3-beta.2", [{"introduced": "0"}, {"fixed": "1.2.3"}], "1.2.3"),
        ("npm", "1.10.0", [{"introduced": "1.2.0"}, {"fixed": "1.9.0"}], None),
        ("npm", "3.1.0", [{"introduced": "1.0.0"}, {"fixed": "2.0.0"}, {"introduced": "3.0.0"}, {"fixed": "3.2.0"}], "3.2.0"),
        ("npm", "2.5.0", [{"introduced": "1.0.0"}, {"fixed": "2.0.0"}, {"introduced": "3.0.0"}, {"fixed": "3.2.0"}], None),
        ("Go", "v0.3.7", [{"introduced": "0"}, {"fixed": "0.3.8"}], "0.3.8"),
        ("Go", "v0.0.0-20200622213623-75b288015ac9", [{"introduced": "0"}, {"fixed": "0.0.0-20201216223049-8b5274cf687f"}],
         "0.0.0-20201216223049-8b5274cf687f"),
        ("crates.io", "0.2.9", [{"introduced": "0.2.0"}, {"last_affected": "0.2.9"}], ""),
    ],
)  # fmt: skip
def test_a_range_holds_what_its_index_would_say(
    ecosystem: str, version: str, events: list[dict[str, str]], fixed: str | None
) -> None:
    assert affected(ecosystem, version, [{"events": events}], []) == fixed


def test_elsewhere_the_list_of_versions_counts() -> None:
    ranges = [{"events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
    assert affected("Maven", "1.5", ranges, ["1.4", "1.5"]) == "2.0"
    assert affected("Maven", "1.6", ranges, ["1.4", "1.5"]) is None
    assert affected("Packagist", "v1.5", [], ["1.5"]) == ""


LOCKS = {
    "requirements.txt": ("# x\nFlask[async]==0.5 ; python_version > '3' \\\n    --hash=sha256:00\nfoo>=1\n", [("PyPI", "Flask", "0.5", 2)]),
    "uv.lock": ('version = 1\n\n[[package]]\nname = "flask"\nversion = "0.5"\nsource = { x = 1 }\n', [("PyPI", "flask", "0.5", 4)]),
    "Cargo.lock": ('[[package]]\nname = "time"\nversion = "0.1.42"\n\n[[package]]\nname = "x"\nversion = "1.0.0"\n',
                   [("crates.io", "time", "0.1.42", 2), ("crates.io", "x", "1.0.0", 6)]),
    "Pipfile.lock": ('{"default": {"flask": {"version": "==0.5"}}}', [("PyPI", "flask", "0.5", 1)]),
    "a/package-lock.json": ('{"packages": {"": {"version": "1"},\n"node_modules/@a/b": {"version": "1.2.3"}}}', [("npm", "@a/b", "1.2.3", 2)]),
    "npm-shrinkwrap.json": ('{"dependencies": {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}}}}',
                            [("npm", "a", "1.0.0", 1), ("npm", "b", "2.0.0", 1)]),
    "yarn.lock": ('# x\n"@a/b@^1.0.0", "@a/b@^1.1":\n  version "1.2.3"\n\nlodash@^4:\n  version: 4.17.1\n',
                  [("npm", "@a/b", "1.2.3", 2), ("npm", "lodash", "4.17.1", 5)]),
    "pnpm-lock.yaml": ("packages:\n\n  /lodash@4.17.1:\n    x: 1\n  '@a/b@1.2.3(c@1.0.0)':\n    x: 1\n",
                       [("npm", "lodash", "4.17.1", 3), ("npm", "@a/b", "1.2.3", 5)]),
    "go.mod": ("module x.test/y\nrequire (\n\tgolang.org/x/text v0.3.7 // indirect\n)\nrequire a.test/b v1.0.0\n",
               [("Go", "golang.org/x/text", "0.3.7", 3), ("Go", "a.test/b", "1.0.0", 5)]),
    "Gemfile.lock": ("GEM\n  specs:\n    rack (2.0.1)\n      x (>= 1)\n", [("RubyGems", "rack", "2.0.1", 3)]),
    "composer.lock": ('{"packages": [{"name": "a/b", "version": "v1.2"}]}', [("Packagist", "a/b", "1.2", 1)]),
    "pom.xml": ("<properties><v>2.14</v></properties>\n<dependency>\n<groupId>g</groupId><artifactId>a</artifactId><version>${v}</version></dependency>",
                [("Maven", "g:a", "2.14", 2)]),
    "gradle.lockfile": ("g:a:1.0=x\n", [("Maven", "g:a", "1.0", 1)]),
    "packages.lock.json": ('{"dependencies": {"net8": {"A.B": {"resolved": "1.0.0"}}}}', [("NuGet", "A.B", "1.0.0", 1)]),
}  # fmt: skip


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_file_gives_its_packages_with_their_lines(path: str) -> None:
    text, wanted = LOCKS[path]
    assert is_lock_file(path)
    assert [tuple(each) for each in dependencies(path, text)] == wanted


def index(tmp_path: Path, *records: bytes | None) -> tuple[Path, advisories.Counts]:
    target = tmp_path / "index"
    return target, advisories.build(records, target, lambda count: None)


def test_an_index_counts_what_it_takes_and_what_it_leaves_out(tmp_path: Path) -> None:
    _, counts = index(
        tmp_path,
        record("GHSA-1", "PyPI", "Flask", {"introduced": "0"}, {"fixed": "1.0"}),
        record("GHSA-2", "npm", "a", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"),
        record("X-1", "Debian:12", "a", {"introduced": "0"}),
        b"not json",
        None,
    )
    assert counts == {
        "advisories": 1,
        "packages": 1,
        "withdrawn": 1,
        "other": 1,
        "unreadable": 2,
        "newest": "2026-10-01T00:00:00Z",
    }


def test_one_vulnerability_under_two_names_is_found_once(tmp_path: Path) -> None:
    target, _ = index(
        tmp_path,
        record("PYSEC-1", "PyPI", "flask", {"introduced": "0"}, {"fixed": "1.0"}, aliases=["CVE-1", "GHSA-1"]),
        record(
            "GHSA-1",
            "PyPI",
            "Flask",
            {"introduced": "0"},
            {"fixed": "1.0"},
            aliases=["CVE-1"],
            database_specific={"severity": "HIGH"},
        ),
    )
    opened = advisories.Index(target)
    assert [(each.id, each.severity, each.fixed) for each in opened.find("PyPI", "FLASK", "0.5")] == [
        ("GHSA-1", "high", "1.0")
    ]
    assert list(opened.find("PyPI", "flask", "1.0")) == []
    assert list(opened.find("npm", "flask", "0.5")) == []
    opened.close()


@pytest.mark.parametrize(
    ("vector", "score"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
        ("CVSS:3.0/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N", 1.8),
        ("CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:H", 5.9),
        ("CVSS:3.1/AV:N", None),
        ("CVSS:4.0/AV:N", None),
    ],
)
def test_a_cvss_vector_has_the_score_its_standard_gives_it(vector: str, score: float | None) -> None:
    assert advisories.cvss(vector) == score


async def test_a_vulnerable_package_is_a_finding_with_the_version_to_go_to(tmp_path: Path) -> None:
    target, _ = index(
        tmp_path,
        record("GHSA-1", "PyPI", "flask", {"introduced": "0"}, {"fixed": "1.0"}),
        record("MAL-2", "PyPI", "flask", {"introduced": "0"}),
    )
    place = tmp_path / "requirements.txt"
    place.write_text("flask==0.5\n")

    async def tell(done: int, total: int) -> None:
        return None

    coverage = await drive(Dependencies(target), [File("requirements.txt", place, 11)], tell)
    assert (coverage.state, coverage.version) == ("ok", "2026-10-01")
    assert [(hit.rule, hit.severity, hit.line, hit.fix) for hit in coverage.hits] == [
        ("osv.GHSA-1", "medium", 1, "Update to 1.0."),
        ("osv.MAL-2", "critical", 1, "Remove it: the package is malicious."),
    ]
