"""Which runtimes profiles ask for, and how doctor speaks of what became of each."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from core.config import Config
from core.doctor import _ranking, _runtime
from core.ranking import Rank, needed
from sandbox.profile import Grade

ECHO = Path(__file__).parents[3] / "tests/emads/echo"


def settings(**table: object) -> Config:
    return Config.model_validate({"emads": [str(ECHO)], **table})


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({}, {"runc": "container"}),
        ({"sandbox": {"runtime": "bwrap"}}, {"bwrap": "container"}),
        ({"sandbox": {"runtime": "bwrap", "least": "namespace"}}, {"bwrap": "namespace"}),
        (
            {"sandbox": {"runtime": "bwrap"}, "profile": {"echo": {"runtime": "runsc", "least": "kernel"}}},
            {"runsc": "kernel"},
        ),
        ({"emads": []}, {"runc": "container"}),
    ],
)
def test_a_runtime_is_needed_for_the_most_that_a_profile_wants(
    table: dict[str, object], found: dict[str, Grade]
) -> None:
    assert needed(settings(**table)) == found


def rank(runtime: str, grade: Grade, *failed: str, offered: bool = True, tried: bool = True) -> Rank:
    return Rank(runtime, grade, "seen", failed, "mend it" if failed else "", offered, tried)


@pytest.mark.parametrize(
    ("looked", "needs", "state"),
    [
        (rank("runc", "container"), {"runc": "container"}, "ok"),
        (rank("runc", "none", "network"), {"runc": "container"}, "bad"),
        (rank("bwrap", "namespace", "memory"), {"bwrap": "container"}, "bad"),
        (rank("bwrap", "namespace", "memory"), {"bwrap": "namespace"}, "ok"),
        (rank("bwrap", "none", offered=False, tried=False), {"runc": "container"}, "unseen"),  # nobody asks for it
        (rank("bwrap", "none", offered=False, tried=False), {"bwrap": "container"}, "bad"),
        (rank("bwrap", "none", offered=False), {"runc": "container"}, "unseen"),  # it did not start
        (rank("bwrap", "container"), {"runc": "container"}, "ok"),
        (rank("runsc", "none", offered=False), {"runc": "container"}, "weak"),  # more could be had
        (rank("runsc", "none", offered=False, tried=False), {"bwrap": "container"}, "unseen"),  # without Docker
        (rank("process", "none", tried=False), {"runc": "container"}, "unseen"),
        (rank("process", "none", tried=False), {"process": "none"}, "ok"),  # whoever asks for it knows that
    ],
)
def test_a_runtime_is_bad_where_a_profile_wants_more_than_was_seen(
    looked: Rank, needs: dict[str, Grade], state: str
) -> None:
    finding = _runtime(looked, needs)
    assert (finding.state, finding.grade) == (state, looked.grade)
    assert finding.mend or state != "bad"


def test_what_was_not_tried_is_told_from_what_did_not_start() -> None:
    needs: dict[str, Grade] = {"runc": "container"}
    found = _runtime(rank("bwrap", "none", offered=False, tried=False), needs)
    assert found.detail.startswith("not tried here: ")
    assert "run madlab doctor again" in found.mend
    assert _runtime(rank("bwrap", "none", offered=False), needs).detail.startswith("it did not start when it was tried")


def test_the_one_that_stops_most_is_first() -> None:
    looked: Sequence[Rank] = [
        rank("runc", "container"),
        rank("bwrap", "namespace"),
        rank("process", "none"),
        rank("runsc", "kernel"),
        rank("kata", "none", offered=False),
    ]
    order, _, use = _ranking(list(looked), {"runc": "container"}).detail.partition("; ")
    assert order == "runsc (kernel), runc (container), bwrap (namespace), process (none)"
    assert use == "profiles use runc for at least 'container'"
