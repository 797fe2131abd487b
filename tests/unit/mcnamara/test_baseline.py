"""Suppressions: whose word counts, and for how long."""

import json
from datetime import date

import pytest

from periphery.mcnamara import baseline
from periphery.mcnamara.findings import Finding, Hit, merge
from protos.errors import InvalidArgument

ENTRY = {"id": "mcn-1", "reason": "a fixture", "who": "ada", "until": "2027-03-31"}


def findings(*ids: str) -> list[Finding]:
    return [Finding(**{**merge([Hit("r", "low", id, 1, "m")])[0], "id": id}) for id in ids]


def text(*entries: dict[str, str]) -> str:
    return json.dumps({"version": 1, "accepted": list(entries)})


def test_what_is_accepted_is_set_aside_with_its_entry_and_the_rest_counts() -> None:
    counting, suppressed = baseline.split(findings("mcn-1", "mcn-2"), baseline.read(text(ENTRY)), date(2027, 3, 31))
    assert [each["id"] for each in counting] == ["mcn-2"]
    assert [(each["id"], entry.who) for each, entry in suppressed] == [("mcn-1", "ada")]


def test_an_expired_entry_counts_again() -> None:
    counting, suppressed = baseline.split(findings("mcn-1"), baseline.read(text(ENTRY)), date(2027, 4, 1))
    assert (len(counting), suppressed) == (1, [])


@pytest.mark.parametrize(
    "wrong",
    [
        "", "[]", "{}", '{"version": 2, "accepted": []}', '{"version": 1, "accepted": {}}', "[" * 5000,
        text({**ENTRY, "reason": " "}), text({**ENTRY, "until": "soon"}), text({**ENTRY, "more": "x"}),
        text({"id": "mcn-1"}), '{"version": 1, "accepted": [3]}',
    ],
)  # fmt: skip
def test_a_baseline_without_reason_person_or_date_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidArgument, match="baseline"):
        baseline.read(wrong)
