"""`madlab secret …` as a person uses it, in one running lab, from the first secret to a vault that moves away."""

import fcntl
import io
import json
import os
import pty
import select
import stat
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from core.grace.cli.client import Client
from core.grace.cli.main import run
from protos.errors import InvalidArgument
from tests.commands import COMMAND, ROOT, Madlab, a_lab, environment
from tests.labs import a_home
from tests.model_server import ModelServer, Play, model_server

TOKEN, NEXT_TOKEN, KEY = "tok-5e8d1c0b7a-first", "tok-9b21f04c3d-second", "sk-3c9d7e5f1a-of-a-provider"
PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(model_server(Play(text="Yes."))) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def config() -> Iterator[Path]:
    """Where this user's programs keep their settings."""
    with a_home() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home.path / "config"))
        yield home.path / "config"


@pytest.fixture(scope="module")
def madlab(server: ModelServer, config: Path) -> Iterator[Madlab]:
    """A lab whose one provider has its key in the vault."""
    settings = f"""emads = []
[providers.here]
kind = "anthropic"
base_url = "{server.anthropic}"
key = "secret://model-key"
[models.a]
provider = "here"
model = "m"
"""
    with a_lab(settings) as running:
        yield running


def files_of(madlab: Madlab) -> bytes:
    """Everything that the lab has on disk."""
    found = b""
    for each in madlab.home.path.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):  # a draft that is gone
            found += each.read_bytes()
    return found


def test_the_first_secret_makes_a_vault_and_says_where_its_key_is(madlab: Madlab, config: Path) -> None:
    assert "vault      none yet" in madlab("status").out
    assert madlab("secret", "list").err == "There is no vault yet: the first secret makes one.\n"
    told = madlab("secret", "set", "token", "--from-stdin", stdin=TOKEN + "\n")
    key = config / "madlab" / f"vault-{madlab.home.lab}.key"
    assert told.code == 0, told.err
    assert f"Its key is in {key}, which only you can read." in told.err
    assert "madlab secret grant token" in told.err
    assert TOKEN not in told.out + told.err
    assert [stat.S_IMODE(each.stat().st_mode) for each in (key, madlab.home.path / "vault.db")] == [0o600, 0o600]
    assert "vault      open, 1 secret" in madlab("status").out
    (listed,) = madlab("secret", "list", "--json").json["secrets"]
    assert (listed["name"], listed["version"], listed["grants"], listed["uses"]) == ("token", 1, 0, 0)


def test_a_short_value_is_kept_with_a_warning(madlab: Madlab) -> None:
    told = madlab("secret", "set", "short", "--from-stdin", stdin="fifteen--bytes!")
    assert told.code == 0, told.err
    assert "short has only 15 bytes: a file or a request in which they stand, even by chance, is refused" in told.err
    told = madlab("secret", "rotate", "short", "--from-stdin", "--json", stdin="sixteen---bytes!")
    assert (told.json["version"], told.err) == (2, "")
    assert madlab("secret", "remove", "short").code == 0


def test_a_value_is_no_argument_and_is_not_repeated(madlab: Madlab) -> None:
    told = madlab("secret", "set", "token", NEXT_TOKEN)
    assert told.code == 2
    assert "A value is never an argument" in told.err
    assert NEXT_TOKEN not in told.out + told.err


def test_a_typed_value_is_not_shown(madlab: Madlab) -> None:
    code, shown = typed(madlab, ["secret", "set", "typed"], "Value of typed (it is not shown): ", "typed-" + TOKEN)
    assert code == 0, shown
    assert "typed is kept (version 1)" in shown
    assert TOKEN not in shown
    assert madlab("secret", "set", "typed", "--from-stdin", stdin="typed-" + TOKEN).code == 0  # it is what was typed
    assert "typed is gone." in madlab("secret", "remove", "typed").err


def test_what_is_granted_is_shown_to_whoever_asks_and_ends_when_it_is_revoked(madlab: Madlab) -> None:
    how = ("--methods", "get,POST", "--as", "header:Authorization=Bearer {}", "--ttl", "1h", "--uses", "3")
    told = madlab("secret", "grant", "token", "--to", "marco", "--for", "API.example.org/repos/", *how)
    assert told.code == 0, told.err
    assert "marco is understood as mad:marco." in told.err
    assert "GET, POST https://api.example.org/repos, added as header:Authorization; until " in told.err
    assert "There is no MAD marco in this lab" in told.err, "a slip of the pen is seen"
    check = ("policy", "check", "secret.use")
    assert madlab(*check, "token", "--as", "marco").code == 0
    no = madlab(*check, "token", "--as", "marco", "--method", "PUT", "--json")
    assert (no.code, no.json["verdict"], no.json["rule"]) == (1, "deny", "grant")
    assert no.json["next"].endswith("madlab secret grant token --to mad:marco --for HOST[/PATH] --methods PUT")
    assert "rule grant: there is no secret nothing" in madlab(*check, "nothing", "--as", "marco").out
    act = {"kind": "secret.use", "target": "token", "principals": ["marco"]}
    for url, rule in (("https://api.example.org/", "grant"), ("no address", "address")):
        assert Client(madlab.home).post("/api/v1/policy/check", act | {"details": {"url": url}})["rule"] == rule
    told = madlab("secret", "grant", "token", "--to", "run:1", "--for", "api.example.org")
    assert (told.code, "There is no run 1 in this lab" in told.err) == (0, True), told.err
    found = madlab("secret", "who-could", "token", "--json").json
    assert [(each["principal"], each["place"], each["uses_left"]) for each in found["grants"]] == [
        ("mad:marco", "https://api.example.org/repos", 3),
        ("run:1", "https://api.example.org", None),
    ]
    assert (
        "mad:marco  https://api.example.org/repos  GET,POST  header:Authorization"
        in madlab("secret", "who-could", "token").out
    )
    assert madlab("secret", "revoke", "token", "--from", "marco").code == 0
    found = madlab("secret", "who-could", "token", "--json").json
    assert [each["principal"] for each in found["grants"]] == ["run:1"]
    assert [each["state"] for each in found["ended"]] == ["revoked"]
    assert madlab("secret", "revoke", "token", "--from", "marco").code == 2
    assert madlab("secret", "revoke", "token", "--id", found["grants"][0]["id"], "--json").json["revoked"]
    assert madlab("secret", "uses", "token", "--json").json == {"uses": [], "providers": []}


def test_every_method_is_granted_to_whoever_says_any_and_to_nobody_who_says_nothing(madlab: Madlab) -> None:
    told = madlab("secret", "grant", "token", "--to", "run:1", "--for", "example.org", "--methods", "any", "--json")
    assert (told.code, told.json["methods"]) == (0, []), told.err
    assert "run:1 " in (shown := madlab("secret", "who-could", "token").out)
    assert " any " in shown
    door, grant = Client(madlab.home), {"id": "grant12", "to": "run:1", "place": "example.org"}
    for methods in ([], ["any", "GET"]):
        with pytest.raises(InvalidArgument, match="methods"):
            door.post("/api/v1/secrets/token/grants", grant | {"methods": methods})
    assert door.post("/api/v1/secrets/token/grants", grant)["methods"] == ["GET"]
    assert len(door.post("/api/v1/secrets/token/revoke", {"to": "run:1"})["revoked"]) == 2


def test_a_grant_to_a_client_that_nobody_made_or_that_is_gone_says_so(madlab: Madlab) -> None:
    grant = ("secret", "grant", "token", "--to", "client:ci", "--for", "example.org")
    assert "There is no client ci in this lab, so nobody has the grant yet. See: madlab client list." in (
        told := madlab(*grant).err
    )
    assert "To take it back: madlab secret revoke token --id " in told
    assert madlab("client", "add", "ci", "--may", "fiedler").code == 0
    assert "There is no" not in madlab(*grant).err
    assert madlab("client", "revoke", "ci").code == 0
    assert "The client ci has no token any more" in madlab(*grant).err
    assert madlab("secret", "revoke", "token", "--from", "client:ci").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["set", "token", "--from-stdin"], "There is a secret token."),
        (["set", "a/b", "--from-stdin"], "is no name for a secret"),
        (["set", "token", "--from-file", "/nowhere"], "/nowhere"),
        (["set", "other"], "there is no terminal to ask on"),
        (["rotate", "nothing", "--from-stdin"], "There is no secret 'nothing'."),
        (["versions", "nothing"], "There is no secret 'nothing'."),
        (["who-could", "nothing"], "There is no secret 'nothing'."),
        (["uses", "nothing"], "There is no secret 'nothing'."),
        (["remove", "nothing"], "There is no secret 'nothing'."),
        (["grant", "nothing", "--to", "marco", "--for", "example.org"], "There is no secret 'nothing'."),
        (["grant", "token", "--to", "a b", "--for", "example.org"], "is no principal"),
        (["grant", "token", "--to", "marco", "--for", "example.org", "--methods", ""], "does not say which methods"),
        (["grant", "token", "--to", "marco", "--for", "example.org", "--methods", " ,"], "does not say which methods"),
        (["grant", "token", "--to", "marco", "--for", "example.org", "--methods", "any,GET"], "`any` alone"),
        (["grant", "token", "--to", "marco", "--for", "http://example.org"], "A secret travels over https"),
        (["grant", "token", "--to", "marco", "--for", "u@example.org"], "no absolute http or https address"),
        (["grant", "token", "--to", "marco", "--for", "example.org/.."], "in different ways"),
        (["grant", "token", "--to", "marco", "--for", "example.org", "--as", "cookie"], "how the value is added"),
        (["grant", "token", "--to", "marco", "--for", "example.org", "--ttl", "soon"], "is no time span"),
        (["export", "/tmp"], "is there already"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    madlab: Madlab, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"another-value")))
    code = run(["--home", str(madlab.home.path), "secret", *words])  # here: seventeen processes would take their time
    told = capsys.readouterr()
    assert (code != 0, sentence in told.err, told.out) == (True, True, ""), told.err
    assert "another-value" not in told.err


def test_a_new_value_retires_the_old_one(madlab: Madlab) -> None:
    told = madlab("secret", "rotate", "token", "--from-stdin", stdin=NEXT_TOKEN + "\r\n")
    assert told.err == "token is at version 2.\n"
    versions = madlab("secret", "versions", "token", "--json").json["versions"]
    assert [(each["version"], each["state"]) for each in versions] == [(1, "retired"), (2, "current")]
    assert [line.split()[:2] for line in madlab("secret", "versions", "token").out.splitlines()[1:]] == [
        ["1", "retired"],
        ["2", "current"],
    ]


def test_a_provider_gets_its_key_from_the_vault(madlab: Madlab, server: ModelServer) -> None:
    asked = madlab("ask", "Is it?")
    assert asked.code == 4
    assert "The key of here, secret://model-key, cannot be had" in asked.err
    assert madlab("secret", "set", "model-key", "--from-stdin", stdin=KEY).code == 0
    assert madlab("ask", "Is it?").out == "Yes.\n"
    assert server.requests[-1].headers["x-api-key"] == KEY
    assert madlab("secret", "rotate", "model-key", "--from-stdin", stdin=KEY + "2").code == 0
    assert madlab("ask", "Is it?").out == "Yes.\n"
    assert server.requests[-1].headers["x-api-key"] == KEY + "2"
    (could,) = madlab("secret", "who-could", "model-key", "--json").json["providers"]
    assert (could["principal"], could["address"]) == ("mad:fiedler", server.anthropic)
    (used,) = madlab("secret", "uses", "model-key", "--json").json["providers"]
    assert used["requests"] == 2
    assert KEY.encode() not in files_of(madlab)


def test_a_vault_moves_in_a_file_that_its_own_passphrase_seals(madlab: Madlab, tmp_path: Path) -> None:
    file, passphrase = tmp_path / "moved", tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE + "\n")
    told = madlab("secret", "export", file, "--passphrase-file", passphrase)
    assert told.code == 0, told.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert NEXT_TOKEN.encode() not in file.read_bytes()
    assert madlab("secret", "export", file, "--passphrase-file", "-", stdin=PASSPHRASE).code == 2  # it is there
    assert "at least 12" in madlab("secret", "export", tmp_path / "x", "--passphrase-file", "-", stdin="short").err
    wrong = madlab("secret", "import", file, "--passphrase-file", "-", stdin=PASSPHRASE + "!")
    assert "nothing was taken in" in wrong.err
    assert madlab("secret", "rotate", "token", "--from-stdin", stdin="tok-third-value").code == 0
    left = madlab("secret", "import", file, "--passphrase-file", passphrase, "--json").json
    assert (left["taken"], left["left"]) == ([], ["model-key", "token"])
    taken = madlab("secret", "import", file, "--passphrase-file", passphrase, "--replace", "--json").json
    assert taken["taken"] == ["model-key", "token"]
    assert madlab("secret", "versions", "token", "--json").json["versions"][-1]["version"] == 4


def test_the_audit_says_what_was_done_to_the_vault_and_how_it_ended(madlab: Madlab) -> None:
    def done(acts: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
        return [(each["act"], each["target"], each["verdict"], each["outcome"]) for each in acts]

    acts = madlab("audit", "--principal", "operator", "--json").json["acts"]
    found = done(acts)
    assert ("vault.create", "", "allow", "done") in found
    for each in (("secret.set", "token"), ("secret.remove", "typed"), ("secret.rotate", "token"), ("vault.export", "")):
        assert (*each, "allow", "done") in found
    assert ("secret.set", "token", "allow", "failed: FAILED_PRECONDITION") in found
    assert ("vault.export", "", "allow", "failed: INVALID_ARGUMENT") in found
    export = next(each for each in acts if each["act"] == "vault.export" and each["outcome"] == "done")
    assert (export["ended"] >= export["at"], export["details"]["secrets"]) == (True, 2)
    assert madlab("policy", "explain", export["id"], "--json").json["act"] == export
    shown = madlab("audit", "--principal", "operator").out
    assert "operator  vault.export  allowed  done" in shown
    assert "secret:" in shown
    assert ":outcome" not in shown
    with madlab.started("audit", "--principal", "operator", "-f", "--json") as following:
        assert following.stdout is not None
        assert done([json.loads(following.stdout.readline()) for _ in acts]) == found
        assert madlab("secret", "rotate", "token", "--from-stdin", stdin="tok-fifth-value").code == 0
        began, ended = (json.loads(following.stdout.readline()) for _ in range(2))
    assert (began["act"], began["outcome"], began["ended"]) == ("secret.rotate", "", None)
    assert (ended["id"], ended["act"], ended["outcome"]) == (began["id"], "secret.rotate", "done")


def test_the_master_key_changes_and_a_core_without_it_is_locked_and_says_so(madlab: Madlab, config: Path) -> None:
    key = config / "madlab" / f"vault-{madlab.home.lab}.key"
    before = key.read_bytes()
    told = madlab("secret", "rekey")
    assert "The vault has a new master key." in told.err
    assert key.read_bytes() != before
    assert madlab("down").code == 0
    key.rename(key.with_suffix(".away"))
    key.write_bytes(before)
    key.chmod(0o600)
    assert "The vault is locked, with 2 secrets." in madlab.up().err
    assert "vault      locked, 2 secrets: The key file" in madlab("status").out
    asked = madlab("ask", "Is it?")
    assert "The vault is locked" in asked.err
    denied = madlab("secret", "unlock", "--json")
    assert (denied.code, denied.error["code"]) == (2, "PERMISSION_DENIED")
    for words in (("set", "new", "--from-stdin"), ("rekey",)):
        told = madlab("secret", *words, "--json", stdin="new-value")
        assert (told.code, told.error["code"]) == (4, "UNAVAILABLE"), "3 is for a lab that cannot be reached"
        assert f"The vault is locked. The key file {key} does not hold the key" in told.error["message"]
        assert told.error["next"].endswith("; then: madlab secret unlock")
    key.unlink()
    assert "No such file" in madlab("secret", "unlock").err
    assert "No such file" in madlab("secret", "rotate", "token", "--from-stdin", stdin="new-value").err
    key.with_suffix(".away").rename(key)
    assert madlab("secret", "unlock").err == "The vault is open, with 2 secrets.\n"
    assert madlab("ask", "Is it?").out == "Yes.\n"


def test_a_passphrase_is_typed_or_read_and_a_wrong_one_changes_nothing(madlab: Madlab, tmp_path: Path) -> None:
    """Last: the lab keeps this lock."""
    settings = madlab.home.settings
    settings.write_text(settings.read_text() + '[vault]\nunlock = "passphrase"\n')
    assert madlab("down").code == 0
    madlab.up()
    assert madlab("secret", "rekey", "--passphrase-file", "-", stdin=PASSPHRASE + "\n").code == 0
    assert madlab("down").code == 0
    assert "The vault wants its passphrase." in madlab.up().err
    wrong = madlab("secret", "unlock", "--passphrase-file", "-", stdin="another passphrase")
    assert (wrong.code, "nothing was changed" in wrong.err) == (2, True)
    code, shown = typed(madlab, ["up"], "Passphrase of the vault (it is not shown): ", PASSPHRASE)
    assert code == 0, shown
    assert PASSPHRASE not in shown
    assert madlab("secret", "list", "--json").json["vault"]["state"] == "open"
    assert madlab("down").code == 0
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE.encode())
    os.close(writing)
    command = [*COMMAND, "up", "--passphrase-fd", str(reading)]
    done = subprocess.run(
        command, pass_fds=[reading], env=environment(madlab.home.path), cwd=ROOT, capture_output=True, check=False
    )
    os.close(reading)
    assert done.returncode == 0, done.stderr
    assert "vault      open, 2 secrets" in madlab("status").out


def test_nothing_of_all_this_is_on_the_disk_or_in_the_process(madlab: Madlab) -> None:
    pid = madlab.home.holder()
    process = b"".join(Path(f"/proc/{pid}/{each}").read_bytes() for each in ("cmdline", "environ"))
    found = files_of(madlab) + process
    for each in (TOKEN, NEXT_TOKEN, KEY, PASSPHRASE, "tok-third-value", "another-value"):
        assert each.encode() not in found
    assert "Max core file size        0                    0" in Path(f"/proc/{pid}/limits").read_text()


def typed(madlab: Madlab, words: list[str], prompt: str, answer: str) -> tuple[int, str]:
    """Runs a command at a terminal, answers the prompt, and returns the exit code and all that was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(madlab.home.path),
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    shown, answered = b"", False
    try:
        while select.select([master], [], [], 90)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:
                break  # it has ended, and so has its terminal
            if not answered and prompt.encode() in shown:
                answered = True
                os.write(master, answer.encode() + b"\n")
        return process.wait(timeout=60), shown.decode(errors="replace")
    finally:
        process.kill()
        os.close(master)
