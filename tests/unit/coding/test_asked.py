"""What may be asked for: who writes, and how long a goal may be."""

import pytest

from core.coding.asked import (
    AGENTS,
    AGENTS_IMAGE,
    GOAL_BLOB_BYTES,
    OPENING_CHARACTERS,
    check_agent,
    check_goal,
    image_of,
    opening_of,
)
from periphery.hopper.agent import ADAPTERS, OWN
from periphery.hopper.mad import GOAL_BLOB_BYTES as GIVEN_BYTES
from protos.errors import InvalidArgument


def test_hopper_has_the_agents_that_are_told_of() -> None:
    assert set(AGENTS) == {*OWN, *ADAPTERS}
    assert {each for each in AGENTS if image_of(each) == AGENTS_IMAGE} == set(ADAPTERS)
    for each in AGENTS:
        check_agent(each)


def test_who_is_not_there_is_refused_with_those_who_are() -> None:
    with pytest.raises(InvalidArgument, match="'nosuch'") as refused:
        check_agent("nosuch")
    assert refused.value.next == f"There are: {', '.join(AGENTS)}."


@pytest.mark.parametrize(
    ("goal", "said"),
    [(" ", "empty"), ("x" * 20_000, "20,000 characters, and at most 12,000"), ("界" * 11_000, "33,002 bytes")],
)
def test_a_goal_that_no_message_carries_is_refused_with_what_to_do(goal: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as refused:
        check_goal(goal)
    assert refused.value.next


def test_a_long_goal_is_taken() -> None:
    check_goal('say "x"\n' * 1_200)


def test_a_goal_that_is_stored_is_shown_by_its_first_whole_lines() -> None:
    lines = "".join(f"{number}. line\n" for number in range(1_000))
    begins = opening_of(lines)
    assert 1_900 < len(begins) <= OPENING_CHARACTERS + 2
    assert lines.startswith(begins.removesuffix(" …") + "\n")
    assert opening_of("x" * 3_000) == "x" * OPENING_CHARACTERS + " …"
    assert GOAL_BLOB_BYTES == GIVEN_BYTES, "what the foreman takes, Hopper reads"
