"""The one finding model: what is made one, what an id depends on, what is masked."""
# ruff: noqa: E501  a table is read one case a line

import random
from dataclasses import replace

from periphery.mcnamara.findings import SECRET, Hit, mask, merge

HIT = Hit("a.rule", "medium", "x.py", 3, "It matters.", "Mend it.", "CWE-78", "medium", "one", snippet="os.system(x)")


def test_two_scanners_on_one_line_and_one_weakness_are_one_finding_that_names_both() -> None:
    other = replace(HIT, rule="b.rule", severity="high", scanner="two")
    (found,) = merge([HIT, other])
    assert (found["rule"], found["severity"], found["confidence"]) == ("b.rule", "high", "high")
    assert found["scanners"] == ["one", "two"]


def test_other_lines_other_weaknesses_and_distinct_rules_stay_apart() -> None:
    hits = [HIT, replace(HIT, line=4), replace(HIT, cwe="CWE-22"), replace(HIT, rule="osv.1", distinct=True), replace(HIT, rule="osv.2", distinct=True)]  # fmt: skip
    assert len(merge(hits)) == 5


def test_an_id_survives_moved_lines_a_missing_scanner_and_any_order() -> None:
    both = [HIT, replace(HIT, rule="b.rule", scanner="two", severity="high")]
    before = merge(both)[0]["id"]
    assert merge([replace(HIT, line=90)])[0]["id"] == before
    assert merge(both[::-1])[0]["id"] == before
    assert merge([replace(HIT, path="y.py")])[0]["id"] != before


def test_the_same_fault_twice_has_two_ids() -> None:
    found = merge([HIT, replace(HIT, line=9)])
    assert len({each["id"] for each in found}) == 2


def test_a_secret_is_masked_in_every_finding_of_its_file_also_by_scanners_that_do_not_know_it() -> None:
    value = "s3cr3t-value-of-some-length"
    leak = replace(HIT, cwe=SECRET, rule="secret.x", secrets=(value,), snippet=f'token = "{value}"')
    other = replace(HIT, line=4, snippet=f"post({value})", message=f"Possible: {value}")
    text = str(merge([leak, other]))
    assert value not in text
    assert "s3cr****" in text


def test_a_short_secret_shows_nothing_and_a_key_of_many_lines_is_masked_line_by_line() -> None:
    assert mask("password=hunter2x", ["hunter2x"]) == "password=****"
    key = "A" * 40 + "\n" + "B" * 40
    assert mask("key: " + "B" * 40, [key]) == "key: BBBB****"


def test_snippets_and_messages_are_one_printable_line() -> None:
    (found,) = merge([replace(HIT, snippet="a\x1b[2J\nb\u202e" + "x" * 999, message="m\x07")])
    assert found["snippet"].isprintable()
    assert found["message"].isprintable()
    assert len(found["snippet"]) <= 201


def test_merging_depends_on_no_order_and_loses_no_scanner() -> None:
    chance = random.Random(5)
    hits = [
        Hit(
            rule=chance.choice("abc"), severity=chance.choice(("low", "high")), path=chance.choice("xyz"),
            line=chance.randrange(4), message="m", cwe=chance.choice(("", "CWE-1")), scanner=chance.choice("12"),
            snippet="s",
        )
        for _ in range(300)
    ]  # fmt: skip
    wanted = merge(hits)
    for _ in range(20):
        chance.shuffle(hits)
        assert merge(hits) == wanted
    assert {(hit.path, hit.line, hit.cwe or hit.rule) for hit in hits} == {
        (each["path"], each["line"], each["cwe"] or each["rule"]) for each in wanted
    }
    assert len({each["id"] for each in wanted}) == len(wanted)
