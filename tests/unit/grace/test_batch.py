"""What a batch file may say, and what its jobs are called."""

from pathlib import Path

import pytest

from core.grace.cli.batch import read_batch
from protos.errors import InvalidArgument
from protos.ids import is_uuid

BATCH = '[batch]\nname = "one"\nat_once = 3\n'


def say(name: str, text: str, *rest: str) -> str:
    return f'[jobs.{name}]\ncall = "echo.say"\narguments = {{ text = "{text}" }}\n' + "".join(f"{x}\n" for x in rest)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "batch: is missing"),
        (BATCH, "jobs: is missing"),
        (BATCH + "color = 1\n" + say("a", "x"), "batch.color: is not known (allowed: at_once, name, usd)"),
        (BATCH + say("a", "x", "nxt = 1"), "jobs.a.nxt: is not known"),
        (BATCH + say("a", "x", 'after = ["b"]'), "jobs.a.after: there is no job 'b'"),
        (BATCH + say("a", "x", 'after = ["b"]') + say("b", "x", 'after = ["a"]'), "wait for each other: a, b"),
        (BATCH + say("a", "x", 'scan = "."'), "this one is call and scan"),
        (BATCH + '[jobs.a]\ncode = "."\n', "goal goes with code"),
        (BATCH + '[jobs.a]\ncode = "."\ngoal = "x"\nagent = "y"\n', "jobs.a: there is no agent 'y' (there are: codex"),
        (BATCH + '[jobs.a]\nscan = "."\narguments = { a = 1 }\n', "arguments go with call"),
        (BATCH + "[jobs.a]\n", "this one is none"),
        (BATCH.replace("3", "0") + say("a", "x"), "batch.at_once"),
        ("[batch\n", "batch.toml:"),
    ],
)
def test_every_mistake_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "batch.toml").write_text(text)
    with pytest.raises(InvalidArgument) as refused:
        read_batch(tmp_path / "batch.toml")
    assert says in refused.value.message
    assert refused.value.next


def test_a_jobs_id_follows_from_what_it_says_alone(tmp_path: Path) -> None:
    (tmp_path / "batch.toml").write_text(BATCH + say("a", "x") + say("b", "x", 'after = ["a"]'))
    batch = read_batch(tmp_path / "batch.toml")
    ids = {batch.id(lab, round, name) for lab in ("1", "2") for round in ("", "2") for name in ("a", "b")}
    assert len(ids) == 8
    assert all(is_uuid(each) for each in ids)
    (tmp_path / "batch.toml").write_text(BATCH.replace("3", "9") + say("b", "x"))
    assert read_batch(tmp_path / "batch.toml").id("1", "", "b") == batch.id("1", "", "b")
