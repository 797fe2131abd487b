"""Speaking with the lab from outside: say, call, history, tools, journal, through a core that may be killed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.ids import new_id
from tests.commands import ECHO, Madlab, a_lab
from tests.labs import CHORUS


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(f'{ECHO}chorus = {{ class = "{CHORUS}" }}\n') as lab:
        yield lab


def test_a_call_prints_its_result_and_nothing_else(madlab: Madlab) -> None:
    told = madlab("call", "echo.say", '{"text": "hello"}')
    assert (told.code, told.json, told.err) == (0, {"text": "hello"}, "")


def test_a_call_takes_its_arguments_from_stdin_too(madlab: Madlab) -> None:
    assert madlab("call", "echo.say", "-", stdin='{"text": "piped"}').json == {"text": "piped"}


def test_a_file_goes_along(madlab: Madlab, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 700_000)
    reply = madlab("call", "echo.repeat", '{"text": "ab", "times": 20000}', "--json").json
    assert reply["kind"] == "reply"
    sent = madlab("call", "echo.say", '{"text": "see"}', "--attach", tmp_path / "a.bin", "--json").json
    asked = madlab("history", sent["conversation"], "--json").out.splitlines()[0]
    assert [(each["name"], each["size"]) for each in json.loads(asked)["blobs"]] == [("a.bin", 700_000)]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["call", "nobody.say"], 2, "There is no MAD called 'nobody'."),
        (["call", "echo.nothing"], 2, "echo has no tool 'nothing'."),
        (["call", "echo.say", '{"txt": 1}'], 2, "echo.say: "),
        (["call", "echo.say", "{"], 2, "the arguments are no JSON"),
        (["call", "echo.say", "[]"], 2, "the arguments are no JSON object"),
        (["call", "echo"], 2, "'echo' names no tool"),
        (["call", "echo.say", "{}", "--attach", "/nonexistent"], 2, "/nonexistent: No such file"),
        (["call", "echo.say", json.dumps({"text": "x" * 20_000})], 2, ""),
        (["call", "echo.misbehave", '{"how": "raise"}'], 4, ""),
        (["say", "nobody", "hello"], 2, "There is no MAD called 'nobody'."),
        (["say", "echo", "  "], 2, "there is nothing to say"),
        (["tools", "nobody"], 2, "There is no MAD called 'nobody'."),
        (["history", "nowhere"], 2, "there is no conversation 'nowhere'"),
        (["show", "nothing"], 2, "There is no run 'nothing'."),
        (["logs", "nothing"], 2, "There is no run 'nothing'."),
        (["logs", "nothing", "-f"], 2, "There is no run 'nothing'."),
        (["cancel", "../status"], 2, ""),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(madlab: Madlab, arguments: list[str], code: int, sentence: str) -> None:
    told = madlab(*arguments, "--json")
    assert (told.code, told.out) == (code, "")
    assert sentence in told.error["message"]
    assert told.error["message"]
    person = madlab(*arguments)
    assert (person.code, person.out) == (code, "")
    assert re.match(r"madlab: .+(\n  .+)?\n$", person.err), person.err


def test_prose_without_a_thought_engine_is_answered_with_the_tools_there_are(madlab: Madlab) -> None:
    told = madlab("say", "echo", "hello", "--json")
    assert (told.code, told.error["code"]) == (4, "no_thought_engine")
    assert "say_later" in told.error["next"]


def test_history_is_one_object_a_line_and_escapes_never_reach_a_terminal(madlab: Madlab) -> None:
    conversation = new_id()
    evil = "\x1b[2J\u202e"
    madlab("call", "echo.say", json.dumps({"text": evil}), "--conversation", conversation)
    lines = [json.loads(each) for each in madlab("history", conversation, "--json").out.splitlines()]
    assert [each["kind"] for each in lines] == ["call", "reply"]
    assert lines[1]["data"] == {"text": evil}
    shown = madlab("history", conversation).out
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_tools_have_exactly_what_programs_rely_on(madlab: Madlab) -> None:
    found = madlab("tools", "--json").json
    said = {"name", "mad", "tool", "description", "effects", "idempotent", "input_schema", "output_schema"}
    assert all(set(each) == said for each in found)
    assert "echo.say" in [each["name"] for each in found]
    of_echo = [each for each in found if each["name"].startswith("echo.")]
    assert madlab("tools", "echo", "--json").json == of_echo
    assert "input_schema" in madlab("tools", "echo").out


def test_the_journal_says_integrity_and_completeness(madlab: Madlab) -> None:
    told = madlab("journal", "verify", "--json")
    assert (told.code, told.json["ok"], told.json["bodies_missing"]) == (0, True, 0)
    assert re.search(r"integrity .*\n.*completeness", madlab("journal", "verify").out)


def test_without_a_database_advisories_say_so(madlab: Madlab) -> None:
    assert madlab("advisories", "status", "--json").json == {"installed": False, "database": None}
    assert "No OSV database" in madlab("advisories", "status").out


def test_whoever_waits_or_follows_outlives_the_core(madlab: Madlab) -> None:
    conversation, other = new_id(), new_id()
    madlab("call", "echo.say", '{"text": "before"}', "--conversation", conversation)
    asked = ("call", "chorus.hold", "--conversation", other)
    with madlab.started("history", conversation, "-f", "--json") as follower, madlab.started(*asked) as asker:
        assert follower.stdout
        assert asker.stderr
        assert [json.loads(follower.stdout.readline())["kind"] for _ in range(2)] == ["call", "reply"]
        while madlab("history", other).code:
            assert asker.poll() is None
        madlab.kill_core()
        assert "waiting up to 60 s" in asker.stderr.readline()
        madlab.up()
        madlab("call", "echo.say", '{"text": "after"}', "--conversation", conversation)
        kinds = [json.loads(follower.stdout.readline()) for _ in range(2)]
        assert [each["kind"] for each in kinds] == ["call", "reply"]
        madlab("call", "chorus.release")
        out, _ = asker.communicate(timeout=60)
        assert set(json.loads(out)) == {"text"}
        assert asker.returncode == 0
