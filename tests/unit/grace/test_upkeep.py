"""What `advisories import` tells of what it took in."""

from typing import Any

import pytest

from core.grace.cli.upkeep import counted


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ({"advisories": 1, "packages": 1, "unreadable": 2}, "1 advisory of 1 package; 2 records could not be read"),
        (
            {"advisories": 1234, "packages": 2, "withdrawn": 3, "other": 4, "unreadable": 1},
            "1,234 advisories of 2 packages; 3 withdrawn, left out; 4 of other ecosystems, left out;"
            " 1 record could not be read",
        ),
        ({"advisories": "many"}, "0 advisories of 0 packages"),
    ],
)
def test_what_was_left_out_of_a_database_is_counted(evidence: dict[str, Any], said: str) -> None:
    assert counted(evidence) == said
