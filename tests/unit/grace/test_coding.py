"""Which model a goal is reached with: told before anything is sent."""

from typing import Any

import pytest

from core.grace.cli.coding import alias_among
from protos.errors import InvalidArgument


def a_model(alias: str, *can: str, is_default: bool = False) -> dict[str, Any]:
    return {"alias": alias, "can": list(can), "is_default": is_default}


MODELS = [a_model("vectors", "embeddings"), a_model("large", "chat", "tools"), a_model("own", "chat", is_default=True)]


def test_an_alias_is_taken_and_none_is_the_default() -> None:
    assert alias_among(MODELS, "large") == "large"
    assert alias_among(MODELS, "") == "own"


@pytest.mark.parametrize("given", ["nosuch", "vectors", "Large"])
def test_what_is_no_model_that_talks_is_refused_with_those_there_are(given: str) -> None:
    with pytest.raises(InvalidArgument, match=given) as refused:
        alias_among(MODELS, given)
    assert refused.value.next == "there are: large, own"


@pytest.mark.parametrize("models", [[], MODELS[:1]])
def test_without_a_model_nothing_is_sent_and_it_is_told_how_to_get_one(models: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        alias_among(models, "")
    assert "madlab model install" in refused.value.next
