"""Turing and one request: what is granted for exactly this goes into it, and is written down; nothing else does."""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.redaction.entries import Clerk
from core.redaction.redactor import Hit, Redactor
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.turing import locks
from core.turing.grants import Grant, GrantsView
from core.turing.places import place_of
from core.turing.principals import principal_of
from core.turing.secret import Secret
from core.turing.settings import Vault as Settings
from core.turing.turing import Revealed, Turing
from protos.errors import Conflict, Denied, InvalidArgument, NotFound, Unavailable
from protos.ids import new_id

VALUE, NEXT_VALUE = b"tok-5e8d1c0b7a-first", b"tok-9b21f04c3d-second"
ME = ("run:7", "mad:marco")
URL = "https://api.example.org/repos/x"
PASSPHRASE = "correct horse battery"


@dataclass
class Notebook:
    """A learner that remembers."""

    known: dict[str, list[bytes]] = field(default_factory=dict)
    asked: Callable[[], None] = lambda: None  # called with each value

    def learn(self, name: str, value: bytes) -> None:
        self.asked()
        self.known.setdefault(name, []).append(value)

    def learn_all(self, named: Iterable[tuple[str, bytes]]) -> None:
        for name, value in named:
            self.learn(name, value)

    def scan(self, data: bytes) -> list[Hit]:
        at = ((name, each, data.find(each)) for name, values in self.known.items() for each in values)
        return [Hit(name, "raw", start, start + len(each)) for name, each, start in at if start >= 0]

    def forget(self, name: str) -> None:
        self.known.pop(name, None)


@dataclass
class Place:
    """A lab's Turing, and what is around it."""

    home: Path
    journal: Journal
    notebook: Notebook
    turing: Turing

    async def granted(
        self,
        place: str = "api.example.org/repos",
        use: str = "",
        *,
        to: str = "mad:marco",
        name: str = "token",
        uses: int | None = None,
    ) -> Grant:
        methods = frozenset({"GET"})
        return await self.turing.grant(new_id(), name, to, place_of(place), methods, use, uses=uses)

    def revealed(self, *headers: tuple[str, bytes], url: str = URL, method: str = "GET") -> Revealed:
        return self.turing.reveal_in(ME, method, url, headers)

    def value(self, text: bytes, **more: str) -> bytes:
        """What a header of that text becomes."""
        ((_, value),) = self.revealed(("Authorization", text), **more).headers
        return value.reveal() if isinstance(value, Secret) else value


def open_turing(home: Path, journal: Journal, notebook: Notebook, **settings: object) -> Turing:
    return Turing(home, "lab", journal, Settings.model_validate({"key_file": "vault.key"} | settings), notebook)


@pytest.fixture(autouse=True)
def _argon2id_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MEMORY_KIB", 256)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    notebook = Notebook()
    async with (
        Journal(tmp_path / "journal.db", [GrantsView()]) as journal,
        open_turing(tmp_path, journal, notebook) as turing,
    ):
        await turing.custody.set("token", Secret(VALUE))
        await turing.custody.set("other", Secret(NEXT_VALUE))
        yield Place(tmp_path, journal, notebook, turing)


# --- what goes into a request


async def test_who_could_use_a_secret_is_known_without_using_it_and_whoever_could_not_is_told_the_command(
    place: Place,
) -> None:
    for name, said in (("token", "has no grant of token"), ("nothing", "there is no secret nothing")):
        with pytest.raises(Denied, match=f"rule grant: .*{said}") as caught:
            place.turing.check_use(ME, name, "POST")
        assert f"madlab secret grant {name} --to mad:marco --for HOST[/PATH] --methods POST" in caught.value.next
    grant = await place.granted()
    place.turing.check_use(ME, "token")
    place.turing.check_use(ME, "token", "GET", URL)
    for who, method, url in (
        (("mad:other",), "", ""),
        (ME, "POST", ""),
        (ME, "GET", "https://api.example.org/"),
        (ME, "", "https://elsewhere.test/repos"),
    ):
        with pytest.raises(Denied, match="rule grant"):
            place.turing.check_use(who, "token", method, url)
    await place.turing.revoke([grant])
    with pytest.raises(Denied, match="rule grant"):
        place.turing.check_use(ME, "token")


async def test_a_handle_is_replaced_where_it_was_granted_and_the_use_is_told(place: Place) -> None:
    grant = await place.granted()
    revealed = place.revealed(("Accept", b"*/*"), ("Authorization", b"token secret://token"))
    assert revealed.headers[0] == ("Accept", b"*/*")
    name, value = revealed.headers[1]
    assert isinstance(value, Secret)
    assert (name, value.reveal()) == ("Authorization", b"token " + VALUE)
    (entry,) = revealed.entries
    assert (entry.kind, entry.sender) == ("secret", "run:7")
    assert VALUE not in entry.body
    assert VALUE.decode() not in repr(revealed)
    told = json.loads(entry.body)
    assert {each: told[each] for each in ("act", "grant", "name", "version", "method", "target")} == {
        "act": "use",
        "grant": grant.id,
        "name": "token",
        "version": 1,
        "method": "GET",
        "target": URL,
    }


HEADERS = [
    (b"secret://token", VALUE),
    (b"Bearer secret://token", b"Bearer " + VALUE),
    (b'key="secret://token", other', b'key="' + VALUE + b'", other'),
    (b"secret://token.", VALUE + b"."),
    (b"secret://token secret://token", VALUE + b" " + VALUE),
    (b"secret://token,secret://other", VALUE + b"," + NEXT_VALUE),
    (b"Basic " + base64.b64encode(b"ada:secret://token"), b"Basic " + base64.b64encode(b"ada:" + VALUE)),
    (b"basic " + base64.b64encode(b"secret://token:x"), b"Basic " + base64.b64encode(VALUE + b":x")),
    (b"Basic " + base64.b64encode(b"ada:plain"), b"Basic " + base64.b64encode(b"ada:plain")),
    (b"Basic !!!", b"Basic !!!"),
    (b"secret:/token", b"secret:/token"),
    (b"secret://", b"secret://"),
    (b"Secret://token", b"Secret://token"),
]


async def test_handles_are_found_wherever_they_stand(place: Place) -> None:
    await place.granted()
    await place.granted(name="other")
    for header, becomes in HEADERS:
        assert place.value(header) == becomes


async def test_one_request_is_one_use_of_a_grant(place: Place) -> None:
    await place.granted(uses=1)
    revealed = place.revealed(("Authorization", b"secret://token secret://token"), ("X-Api-Key", b"secret://token"))
    assert len(revealed.entries) == 1
    await place.journal.append(*revealed.entries)
    with pytest.raises(Denied, match="its uses are spent"):
        place.revealed(("Cookie", b"secret://token"))


async def test_a_handle_for_anything_else_is_denied_with_what_would_be_needed(place: Place) -> None:
    await place.granted()
    asked: list[dict[str, str]] = [
        {"url": "https://api.example.org/other"},
        {"url": "https://evil.net/repos/x"},
        {"url": "http://api.example.org/repos/x"},
        {"url": "https://api.example.org/repos/%2e%2e/x"},
        {"method": "POST"},
    ]
    for each in asked:
        with pytest.raises(Denied, match="rule grant: mad:marco may not use token for") as caught:
            place.value(b"secret://token", **each)
        assert caught.value.next.startswith("The operator can grant it: madlab secret grant token --to mad:marco")
        assert VALUE.decode() not in f"{caught.value.message}{caught.value.next}"


async def test_what_is_not_there_and_what_is_not_granted_look_the_same(place: Place) -> None:
    said = []
    for name in ("other", "nothing"):
        with pytest.raises(Denied) as caught:
            place.value(f"secret://{name}".encode())
        said.append((caught.value.message.replace(name, "X"), caught.value.next.replace(name, "X")))
    assert said[0] == said[1]


async def test_what_was_granted_to_somebody_else_is_denied(place: Place) -> None:
    await place.granted(to="mad:hopper")
    await place.granted(to="run:8")
    await place.granted(to="operator")
    with pytest.raises(Denied):
        place.value(b"secret://token")
    await place.granted(to="run:7")
    assert place.value(b"secret://token") == VALUE


async def test_a_credential_is_added_by_itself_in_the_form_that_was_granted(place: Place) -> None:
    await place.granted(use="header:Authorization=Bearer {}")
    await place.granted(use="header:X-Key", name="other")
    added = place.turing.credentials(ME, "GET", URL)
    assert {(each.header, each.value.reveal()) for each in added} == {
        ("Authorization", b"Bearer " + VALUE),
        ("X-Key", NEXT_VALUE),
    }
    assert place.turing.credentials(ME, "POST", URL) == []
    assert place.turing.credentials(ME, "GET", "https://api.example.org/") == []
    assert [each.header for each in place.turing.credentials(ME, "GET", URL, having={"authorization"})] == ["X-Key"]
    assert VALUE.decode() not in repr(added)


async def test_basic_authentication_is_added_as_a_pair(place: Place) -> None:
    await place.granted(use="basic:ada")
    (added,) = place.turing.credentials(ME, "GET", URL)
    assert (added.header, added.value.reveal()) == ("Authorization", b"Basic " + base64.b64encode(b"ada:" + VALUE))


async def test_a_grant_for_one_header_is_for_no_other(place: Place) -> None:
    await place.granted(use="header:Authorization=Bearer {}")
    assert place.value(b"token secret://token") == b"token " + VALUE
    with pytest.raises(Denied, match="in the header X-Echo"):
        place.revealed(("X-Echo", b"secret://token"))


async def test_the_most_exact_grant_wins(place: Place) -> None:
    await place.granted("api.example.org", use="header:Authorization=wide {}", to="run:7")
    await place.granted("api.example.org/repos/x", use="header:Authorization=long {}", name="other")
    await place.granted("api.example.org/repos", use="header:Authorization=short {}")
    (added,) = place.turing.credentials(ME, "GET", URL)
    assert added.value.reveal() == b"long " + NEXT_VALUE
    await place.granted("api.example.org/repos/x", use="header:Authorization=own {}", to="run:7")
    (added,) = place.turing.credentials(ME, "GET", URL)
    assert added.value.reveal() == b"own " + VALUE


async def test_a_value_with_a_line_break_goes_into_no_header(place: Place) -> None:
    await place.turing.custody.set("file", Secret(b"line one\r\nX-Evil: 1"))
    await place.granted(name="file", use="header:Authorization=Bearer {}")
    for attempt in (
        lambda: place.value(b"secret://file"),
        lambda: place.turing.credentials(ME, "GET", URL),
    ):
        with pytest.raises(Denied, match="cannot stand in a header") as caught:
            attempt()
        assert "X-Evil" not in caught.value.message


# --- leases, versions, and what the redactor knows


async def test_whoever_began_with_one_value_goes_on_with_it_until_the_lease_ends(place: Place) -> None:
    await place.granted()
    first = place.revealed(("Cookie", b"secret://token"))
    await place.journal.append(*first.entries)
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"2"))
    assert place.value(b"secret://token") == VALUE
    ((_, other),) = place.turing.reveal_in(("run:8", "mad:marco"), "GET", URL, [("Cookie", b"secret://token")]).headers
    assert isinstance(other, Secret)
    assert other.reveal() == NEXT_VALUE + b"2"
    assert [each.state(time.time()) for each in place.turing.versions("token")] == ["leased", "current"]


async def test_a_value_that_was_seen_ends_at_once(place: Place) -> None:
    await place.granted()
    await place.journal.append(*place.revealed(("Cookie", b"secret://token")).entries)
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"2"), at_once=True)
    assert place.value(b"secret://token") == NEXT_VALUE + b"2"
    assert [each.state(time.time()) for each in place.turing.versions("token")] == ["retired", "current"]
    assert VALUE not in (place.home / "vault.db").read_bytes()


async def test_without_a_lease_the_old_value_is_destroyed_with_the_rotation(place: Place) -> None:
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"2"))
    first, _ = place.turing.versions("token")
    assert (first.state(time.time()), first.value) == ("retired", None)


async def test_the_redactor_knows_every_value_that_can_be_read(place: Place) -> None:
    assert place.notebook.known == {"token": [VALUE], "other": [NEXT_VALUE]}
    await place.granted()
    await place.journal.append(*place.revealed(("Cookie", b"secret://token")).entries)
    await place.turing.custody.rotate("token", Secret(b"tok-third-value"))
    place.value(b"secret://token")
    assert place.notebook.known["token"] == [VALUE, b"tok-third-value"]
    later = Notebook()
    async with open_turing(place.home, place.journal, later):
        assert {name: sorted(values) for name, values in later.known.items()} == {
            "token": sorted([VALUE, b"tok-third-value"]),  # the old one is leased
            "other": [NEXT_VALUE],
        }
    await place.turing.custody.remove("token")
    assert "token" not in place.notebook.known


async def test_the_redactor_knows_every_value_before_the_vault_is_open(place: Place) -> None:
    (place.home / "vault.key").rename(place.home / "away")
    later, states = Notebook(), []
    async with open_turing(place.home, place.journal, later) as turing:
        later.asked = lambda: states.append(turing.state.state)
        assert (turing.state.state, later.known) == ("locked", {})
        (place.home / "away").rename(place.home / "vault.key")
        await turing.custody.unlock()
        assert turing.state.state == "open"
        assert (states, sorted(later.known)) == (["locked", "locked"], ["other", "token"])


async def test_a_request_that_waited_while_its_value_was_retired_is_not_sent(place: Place) -> None:
    await place.granted()
    other = place.turing.reveal_in(("run:8", "mad:marco"), "GET", URL, [("Authorization", b"secret://token")])
    waiting = place.revealed(("Authorization", b"secret://token"))
    await place.journal.append(*place.revealed(("Authorization", b"secret://token")).entries)  # begins a lease of run:7
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"2"))
    with pytest.raises(Denied, match="has had a new value since this request was made"):
        await place.journal.append(*other.entries)
    await place.journal.append(*waiting.entries)
    waiting = place.revealed(("Authorization", b"secret://token"))
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"3"), at_once=True)
    with pytest.raises(Denied, match="has had a new value"):
        await place.journal.append(*waiting.entries)
    await place.journal.append(*place.revealed(("Authorization", b"secret://token")).entries)


async def test_an_old_vault_that_was_put_back_can_be_used(place: Place) -> None:
    await place.granted()
    backup = (place.home / "vault.db").read_bytes()
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"2"), at_once=True)
    (place.home / "vault.db").write_bytes(backup)
    async with open_turing(place.home, place.journal, Notebook()) as again:
        revealed = again.reveal_in(ME, "GET", URL, [("Authorization", b"secret://token")])
        await place.journal.append(*revealed.entries)
        assert again.versions("token")[-1].version == 1


# --- what the operator does


async def test_the_same_value_again_changes_nothing_and_another_is_a_conflict(place: Place) -> None:
    custody = place.turing.custody
    assert (await custody.set("token", Secret(VALUE))).version == 1
    with pytest.raises(Conflict, match="There is a secret token"):
        await custody.set("token", Secret(NEXT_VALUE))
    assert (await custody.rotate("token", Secret(NEXT_VALUE))).version == 2
    assert (await custody.rotate("token", Secret(NEXT_VALUE))).version == 2
    assert place.turing.open("token").reveal() == NEXT_VALUE


async def test_what_is_no_name_is_refused(place: Place) -> None:
    for name in ("", ".", "-x", "a b", "a/b", "ä", "x" * 65, "a\n", "x."):
        with pytest.raises(InvalidArgument):
            await place.turing.custody.set(name, Secret(VALUE))


async def test_what_cannot_be_struck_out_is_no_secret(place: Place) -> None:
    for value in (b"", b"short", b"       x       ", b"x" * 70_000):
        with pytest.raises(InvalidArgument, match="a secret has 8 to 65536"):
            await place.turing.custody.set("new", Secret(value))
        with pytest.raises(InvalidArgument):
            await place.turing.custody.rotate("token", Secret(value))


async def test_what_cannot_be_added_is_refused_when_it_is_granted(place: Place) -> None:
    refused = ["header", "header:", "header:X Y", "header:Host", "header:Content-Length={}", "header:Transfer-Encoding"]
    refused += ["header:A={}{}", "header:A=none", "header:A=\r\n{}", "header:A=ä{}", "header:Proxy-Authorization"]
    refused += ["basic:", "basic:a:b", "query:key", "cookie"]
    for use in refused:
        with pytest.raises(InvalidArgument):
            await place.granted(use=use)


async def test_a_secret_travels_in_clear_on_this_machine_only(place: Place) -> None:
    with pytest.raises(InvalidArgument, match="travels over https"):
        await place.granted("http://api.example.org")
    with pytest.raises(InvalidArgument):
        await place.granted("http://10.0.0.1")
    for each in ("http://127.0.0.1:1234", "http://localhost", "http://[::1]:99/x"):
        await place.granted(each)


async def test_nothing_is_granted_of_what_is_not_there(place: Place) -> None:
    with pytest.raises(NotFound):
        await place.granted(name="nothing")


@pytest.mark.parametrize("value", ["https://api1.example.org/repos", "api1.example.org", "mad:marco1", "Bearer b3"])
async def test_a_grant_whose_words_hold_a_value_is_refused_and_the_lab_starts_again(tmp_path: Path, value: str) -> None:
    for _ in range(2):
        redactor = Redactor()
        async with (
            Journal(tmp_path / "journal.db", [GrantsView()], clean=Clerk(redactor).clean) as journal,
            Turing(tmp_path, "lab", journal, Settings.model_validate({"key_file": "vault.key"}), redactor) as turing,
        ):
            await turing.custody.set("hook", Secret(value.encode()))
            await turing.custody.set("token", Secret(VALUE))
            place = place_of("api1.example.org/repos")
            with pytest.raises(InvalidArgument, match="of the grant has in it the value of the secret hook") as refused:
                await turing.grant(new_id(), "token", "mad:marco1", place, frozenset(), "header:A=Bearer b3ar {}")
            assert value not in refused.value.message
            assert list(turing.grants.all()) == []


async def test_a_removed_secret_takes_its_grants_along(place: Place) -> None:
    await place.granted()
    await place.turing.custody.remove("token")
    with pytest.raises(Denied):
        place.value(b"secret://token")
    await place.turing.custody.set("token", Secret(NEXT_VALUE))
    with pytest.raises(Denied):
        place.value(b"secret://token")


async def test_acts_of_the_operator_are_in_the_journal_without_a_value(place: Place) -> None:
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE))
    with pytest.raises(Conflict):
        await place.turing.custody.set("token", Secret(b"something else"))
    await place.turing.custody.rekey()
    await place.turing.custody.export(PASSPHRASE)
    await place.journal.append()
    rows = await place.journal.query(
        "SELECT b.body FROM journal JOIN body b USING (sequence) WHERE kind = 'secret' ORDER BY sequence"
    )
    acts = [json.loads(body) for (body,) in rows]
    told = {(each["act"], each["step"]) for each in acts}
    for act in ("vault.create", "secret.set", "secret.rotate", "vault.rekey", "vault.export"):
        assert {(act, "started"), (act, "outcome")} <= told
    assert any(each.get("failed") == "FAILED_PRECONDITION" for each in acts if each["act"] == "secret.set")
    assert not any(value in body for (body,) in rows for value in (VALUE, NEXT_VALUE, b"something else"))


async def test_a_locked_vault_says_so_to_those_who_need_it_only(place: Place) -> None:
    await place.granted(use="header:Authorization=Bearer {}")
    (place.home / "vault.key").unlink()
    async with open_turing(place.home, place.journal, Notebook()) as locked:
        assert locked.state.state == "locked"
        assert locked.names() == ["other", "token"]
        assert locked.credentials(ME, "GET", "https://elsewhere.example/") == []
        assert [each.name for each in locked.handles(ME)] == ["token"]
        for attempt in (
            lambda: locked.credentials(ME, "GET", URL),
            lambda: locked.reveal_in(ME, "GET", URL, [("Authorization", b"secret://token")]),
            lambda: locked.open("token"),
        ):
            with pytest.raises(Unavailable, match="The vault is locked"):
                attempt()
        for change in (
            locked.custody.set("new", Secret(VALUE)),
            locked.custody.rotate("token", Secret(NEXT_VALUE)),
            locked.custody.export(PASSPHRASE),
            locked.custody.rekey(),
        ):
            with pytest.raises(Unavailable, match=r"is locked. The key file .*: No such file") as caught:
                await change
            assert caught.value.next.startswith("Put it there")
            assert caught.value.next.endswith("; then: madlab secret unlock")
        with pytest.raises(Denied):
            await locked.custody.unlock()
        await place.journal.append(Entry("next", "act"))  # outcomes ride along
        tried = await place.journal.query(
            "SELECT b.body FROM journal JOIN body b USING (sequence) WHERE kind = 'secret' ORDER BY sequence DESC"
        )
        assert json.loads(tried[0][0]) == {"act": "vault.unlock", "step": "outcome", "failed": "PERMISSION_DENIED"}


async def test_a_vault_moves_to_another_lab(place: Place, tmp_path: Path) -> None:
    file = await place.turing.custody.export(PASSPHRASE)
    assert VALUE not in file
    other = tmp_path / "other"
    other.mkdir()
    notebook = Notebook()
    async with open_turing(other, place.journal, notebook) as turing:
        with pytest.raises(Denied, match="nothing was taken in"):
            await turing.custody.take_in(file, PASSPHRASE + "!")
        with pytest.raises(Denied):
            await turing.custody.take_in(file[:-1], PASSPHRASE)
        for damaged in (b"", file[1:], file.replace(b'"lanes": 4', b'"lanes": 999'), b"madlab-vault 1\n{}\n"):
            with pytest.raises((InvalidArgument, Conflict)):
                await turing.custody.take_in(damaged, PASSPHRASE)
        assert turing.names() == []
        assert await turing.custody.take_in(file, PASSPHRASE) == (["other", "token"], [])
        assert turing.open("token").reveal() == VALUE
        assert set(notebook.known["token"]) == {VALUE}
        await turing.custody.rotate("token", Secret(b"changed here"))
        assert await turing.custody.take_in(file, PASSPHRASE) == ([], ["other", "token"])
        assert turing.open("token").reveal() == b"changed here"
        assert await turing.custody.take_in(file, PASSPHRASE, replace=True) == (["other", "token"], [])
        assert (turing.open("token").reveal(), turing.open("token").version) == (VALUE, 3)


async def test_an_import_leaves_what_was_set_meanwhile(place: Place) -> None:
    file = await place.turing.custody.export(PASSPHRASE)
    await place.turing.custody.remove("token")
    vault = place.turing._keeper.vault

    def sets(rows: Sequence[Row]) -> None:
        if any(row.body and b"vault.import" in row.body and b"started" in row.body for row in rows):
            vault.add("token", Secret(b"set just now"), after=0, keep_until=0, now=time.time())

    place.journal.on_commit(sets)
    assert await place.turing.custody.take_in(file, PASSPHRASE) == ([], ["other", "token"])
    assert place.turing.open("token").reveal() == b"set just now"


async def test_an_import_that_replaces_retires_as_a_rotation_does(place: Place) -> None:
    file = await place.turing.custody.export(PASSPHRASE)
    await place.granted()
    await place.turing.custody.rotate("token", Secret(NEXT_VALUE + b"2"))
    await place.journal.append(*place.revealed(("Authorization", b"secret://token")).entries)
    assert await place.turing.custody.take_in(file, PASSPHRASE, replace=True) == (["other", "token"], [])
    assert [each.state(time.time()) for each in place.turing.versions("token")] == ["retired", "leased", "current"]
    assert place.value(b"secret://token") == NEXT_VALUE + b"2"
    assert place.turing.open("token").reveal() == VALUE
    assert len(place.turing.versions("other")) == 1  # it had that value
    assert await place.turing.custody.take_in(file, PASSPHRASE, replace=True) == (["other", "token"], [])
    assert len(place.turing.versions("token")) == 3


async def test_a_value_that_was_damaged_is_mended_by_a_new_one(place: Place) -> None:
    place.turing._keeper.vault._db.execute("UPDATE secret SET value = x'00' WHERE name = 'token'")
    async with open_turing(place.home, place.journal, Notebook()) as again:
        with pytest.raises(Conflict, match="does not open"):
            again.open("token")
        await again.custody.rotate("token", Secret(NEXT_VALUE))
        assert again.open("token").reveal() == NEXT_VALUE


@pytest.mark.parametrize(
    ("text", "principal"),
    [
        ("marco", "mad:marco"),
        ("mad:marco", "mad:marco"),
        ("operator", "operator"),
        ("run:hopper-1/2", "run:hopper-1/2"),
    ],
)
def test_principals_are_understood(text: str, principal: str) -> None:
    assert principal_of(text) == principal


@pytest.mark.parametrize("text", ["", "mad:", "Mad:x", "run:", "x y", "client:a/b", "mad:*", "*", "mad:a:b", "a\n"])
def test_what_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        principal_of(text)
