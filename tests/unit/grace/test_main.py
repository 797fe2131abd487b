"""How every command ends: a sentence and an exit code, also where madlab itself is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.grace.cli import main
from core.grace.cli.talk import read_object
from core.home import Home
from protos.errors import InvalidArgument


@pytest.fixture
def broken() -> Iterator[None]:
    """A command with a mistake in it."""

    def breaks(json: bool = False, foreground: bool = False) -> None:
        raise KeyError("an\nodd name")

    main.app.command("breaks")(breaks)
    yield
    main.app.registered_commands.pop()


@pytest.mark.usefixtures("broken")
def test_a_mistake_of_ours_is_a_sentence_with_its_place_and_where_to_report_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["breaks", "--json"]) == 4
    told = capsys.readouterr()
    error = json.loads(told.err)["error"]
    assert (told.out, error["code"]) == ("", "INTERNAL")
    assert error["message"].startswith("a mistake of madlab itself: KeyError in ")
    assert "support-bundle" in error["next"]
    assert main.run(["breaks"]) == 4
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(KeyError):
        main.run(["breaks", "--foreground"])  # of the core the log holds the whole of it


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 990 + "1" + "}" * 990])
def test_arguments_that_are_nested_too_deeply_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        read_object(text)


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "resume", "apply", "approve", "deny"])
@pytest.mark.parametrize("id", ["", "../x"])
def test_an_id_that_none_can_have_is_told_as_one_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, id: str
) -> None:
    Home.open(str(tmp_path))
    assert main.run(["--home", str(tmp_path), command, id]) == 2
    what = "approval" if command in ("approve", "deny") else "run"
    assert capsys.readouterr().err == f"madlab: There is no {what} '{id}'.\n  See: madlab {what}s\n"
