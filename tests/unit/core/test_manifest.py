"""A manifest is data: whatever is wrong with it is said with its file and field."""

from pathlib import Path

import pytest

from core.config import Config
from core.manifest import load_manifest, profile_of
from core.registry import Registry, emad
from core.router import Ephemeral, Nobody
from protos.errors import InvalidArgument, NotFound

ROOT = Path(__file__).parents[3]
ECHO = ROOT / "tests/emads/echo"


def written(folder: Path, text: str) -> Path:
    (folder / "manifest.toml").write_text(text)
    return folder


GOOD = 'name = "x"\nversion = "1"\nsummary = "s"\nimage = "base"\nentry = "m:C"\n'

BAD_TOOL = """
[[tools]]
name = "t"
description = ""
effects = "read"
input_schema = '{"type": 3}'
output_schema = "{}"
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "colour = 1\n", "colour"),
        (GOOD.replace('"x"', '"Über"'), "name"),
        (GOOD + '[profile]\nruntime = "none"\n', "profile.runtime"),
        (GOOD + '[profile]\nleast = "none"\n', "profile.least: .*the operator's to accept"),
        (GOOD + '[profile]\nleast = "namespace"\n', "profile.least"),
        (GOOD + "_is_ours = true\n", "_is_ours"),
        (GOOD + '[[tools]]\nname = "t"\n', "tools.0"),
        (GOOD + "[profile\n", "manifest.toml"),
    ],
)
def test_what_no_manifest_says_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        load_manifest(written(tmp_path, text))


def test_a_schema_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="JSON Schema"):
        load_manifest(written(tmp_path, GOOD + BAD_TOOL))


def test_a_missing_manifest_says_which_setting_to_correct(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        load_manifest(tmp_path)
    assert "emads" in refused.value.next


def test_the_operators_limits_override_the_manifests() -> None:
    manifest = load_manifest(ECHO)
    assert profile_of(manifest, {"memory_mb": 300}).memory_mb == 300
    assert profile_of(manifest, {}).entry == ("python3", "-m", "protos.host", "tests.emads.echo:Echo")


def test_a_manifest_may_want_more_walls_and_the_operator_fewer(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, GOOD + '[profile]\nleast = "kernel"\n'))
    assert profile_of(manifest, {}).least == "kernel"
    assert profile_of(manifest, {"least": "namespace"}).least == "namespace"


def test_the_calls_of_a_browser_are_ours_or_the_operators_to_give(tmp_path: Path) -> None:
    foreign = load_manifest(written(tmp_path, GOOD + '[profile]\ncalls = "browser"\n'))
    with pytest.raises(InvalidArgument, match="x wants the system calls of a browser") as refused:
        profile_of(foreign, {})
    assert '[profile.x] calls = "browser"' in refused.value.next
    for calls in ("browser", "usual"):
        settings = Config.model_validate({"profile": {"x": {"calls": calls}}})
        assert profile_of(foreign, settings.overrides("x")).calls == calls
    assert profile_of(load_manifest(ROOT / "periphery/marco"), Config().overrides("marco")).calls == "browser"


def test_a_program_in_another_language_is_started_as_it_is_written(tmp_path: Path) -> None:
    folder = written(tmp_path, GOOD.replace('"m:C"', '["node", "main.js"]'))
    assert load_manifest(folder).program == ("node", "main.js")


def test_calls_are_checked_against_the_schema_of_their_tool() -> None:
    registry = Registry([emad(load_manifest(ECHO))])
    registry.check_call("echo", "say", {"text": "x"})
    with pytest.raises(InvalidArgument, match="text"):
        registry.check_call("echo", "say", {"text": 5})
    with pytest.raises(InvalidArgument, match="extra"):
        registry.check_call("echo", "say", {"text": "x", "extra": 1})
    with pytest.raises(NotFound, match="shout") as unknown:
        registry.check_call("echo", "shout", {})
    assert "say" in unknown.value.next
    with pytest.raises(NotFound):
        registry.check_call("nobody", "say", {})


def test_a_recipient_is_an_emad_or_nobody() -> None:
    registry = Registry([emad(load_manifest(ECHO))])
    assert registry.destination("echo") == Ephemeral("echo")
    assert registry.destination("eko") == Nobody()


def test_two_mads_of_one_name_are_refused() -> None:
    mad = emad(load_manifest(ECHO))
    with pytest.raises(InvalidArgument, match="echo"):
        Registry([mad, mad])
