"""`madlab browse` from outside: a page, a picture, a download and a refusal, as a person meets them."""

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.home import Home
from tests.commands import Madlab, a_lab
from tests.docker_lab import built
from tests.labs import ROOT

pytestmark = pytest.mark.docker

FILE = b"MZ not to be run\n" * 100
PAGES = {
    "/": ("text/html", b"<title>Home</title><main><h1>Hello</h1><p>from <a href=/file.exe>a file</a></p></main>"),
    "/file.exe": ("application/x-msdownload", FILE),
}
SETTINGS = f"""
emads = ["{ROOT / "periphery/marco"}"]
[egress.names]
"site.test" = ["127.0.0.1"]
"other.test" = ["127.0.0.1"]
"inside.example" = ["127.0.0.1", "127.0.0.2"]
"""
RULES = """
[[rules]]
name = "here"
kinds = ["web.fetch"]
principals = ["mad:marco"]
hosts = ["*.test:*"]
methods = ["GET"]
verdict = "allow"
limits = { addresses = ["127.0.0.1/32"] }
"""


class Handler(BaseHTTPRequestHandler):
    """Serves the pages, without a word."""

    def do_GET(self) -> None:
        media_type, body = PAGES.get(self.path, ("text/plain", b"not here"))
        self.send_response(200 if self.path in PAGES else 404)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ruled(home: Home) -> None:
    """Puts the rules where the lab looks for them."""
    (home.path / "policy.toml").write_text(RULES)


@pytest.fixture(scope="module")
def madlab(port: int) -> Iterator[Madlab]:
    built("marco")
    with a_lab(
        SETTINGS,
        images=("base", "marco"),
        limit_s=240,
        prepare=ruled,
    ) as lab:
        yield lab


def test_a_page_is_printed_and_all_of_it_is_written_where_it_was_asked(
    madlab: Madlab, port: int, tmp_path: Path
) -> None:
    site = f"http://site.test:{port}"
    done = madlab("browse", f"{site}/", f"{site}/file.exe", "--screenshot", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert f"# Hello\n\nfrom [a file](<{site}/file.exe>)" in done.out
    assert f"In quarantine: file.exe, 1.7 kB, sha256:{sha256(FILE).hexdigest()}" in done.err
    out = tmp_path / "out"
    assert (out / "page-1.md").read_text().startswith("# Hello")
    assert (out / "page-1.png").read_bytes().startswith(b"\x89PNG")
    kept = out / "quarantine" / "1-file.exe"
    assert kept.read_bytes() == FILE
    assert kept.stat().st_mode & 0o777 == 0o600


def test_for_programs_there_is_json_and_a_host_that_was_not_named_is_not_reached(madlab: Madlab, port: int) -> None:
    addresses = [f"http://{host}.test:{port}/" for host in ("site", "other")]
    done = madlab("browse", *addresses, "--only-host", f"site.test:{port}", "--json")
    assert done.code == 0, done.err
    first, second = done.json["pages"]
    assert (first["title"], first["problem"]) == ("Home", "")
    assert f"lets it reach site.test:{port} only" in second["problem"]
    assert done.json["outcome"] == "partial"
    run = madlab("show", done.json["run"], "--json").json
    assert (run["mad"], run["outcome"], run["evidence"]["pages"]) == ("marco", "partial", 1)


def test_a_refusal_says_the_rule_and_what_would_be_needed(madlab: Madlab, port: int) -> None:
    done = madlab("browse", "http://nowhere.example:81/", "--json")
    assert done.code == 4
    assert done.error["code"] == "permission_denied"
    assert "rule" in done.error["message"]
    assert done.error["next"]
    assert madlab("browse", "find the price").code == 2


def test_whoever_runs_the_lab_is_told_a_name_that_nobody_knows_from_one_that_leads_inside(
    madlab: Madlab, port: int, tmp_path: Path
) -> None:
    unknown = madlab("browse", "http://no-such-name.invalid/")
    assert unknown.code == 4
    assert "madlab: http://no-such-name.invalid/ was not reached: nobody knows the name\n" in unknown.err
    assert "Check the name" in unknown.err
    assert "[[rules]]" not in unknown.err

    address = f"http://inside.example:{port}/"
    denied = madlab("browse", address)
    assert "rule default: no rule allows it" in denied.err
    advice = "[[rules]]" + denied.err.partition("[[rules]]")[2]
    (madlab.home.path / "policy.toml").write_text(f"{advice}\n{RULES}")
    assert madlab("policy", "reload").code == 0

    inside = madlab("browse", address, "--json")
    assert inside.error["code"] == "not_reached"
    assert "the address is loopback (127.0.0.1, 127.0.0.2)" in inside.error["message"]
    act = inside.error["next"].rpartition(" ")[2]
    explained = madlab("policy", "explain", act).out
    assert "why      the address is loopback (127.0.0.1, 127.0.0.2)" in explained
    assert f"for the top of {madlab.home.path / 'policy.toml'}" in explained
    assert "madlab policy backtest" in explained
    rule = "[[rules]]" + explained.partition("[[rules]]")[2]
    new = tmp_path / "new.toml"
    new.write_text(f"{rule}\n{advice}\n{RULES}")
    assert madlab("policy", "backtest", new, "--json").code == 0
    (madlab.home.path / "policy.toml").write_text(new.read_text())
    assert madlab("policy", "reload").code == 0
    assert "# Hello" in madlab("browse", address).out

    # Where something came, the rest is told beside it; and a run still hears one answer for both.
    mixed = madlab("browse", address, "http://no-such-name.invalid/", "--json").json
    assert [(each["url"], each["reason"]) for each in mixed["unreached"]] == [
        ("http://no-such-name.invalid/", "nobody knows the name")
    ]
    assert "leads to no address that may be reached" in mixed["pages"][1]["problem"]
