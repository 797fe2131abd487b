"""Tables of strangers: what their columns are taken for, and what is wrong with them."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from periphery.playfair.limits import Limits
from periphery.playfair.profile import facts_of, sample
from periphery.playfair.reading import read
from periphery.playfair.tables import Table, clean, names_of, number_of, time_of
from protos.errors import Exhausted, InvalidArgument

DAY = 86_400.0


def table(tmp_path: Path, content: str | bytes, name: str = "data", **limits: Any) -> Table:
    path = tmp_path / "data"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path, Limits(**limits), name=name)[0]


def kinds(found: Table) -> dict[str, str]:
    return {each.name: each.kind for each in found.columns}


def test_columns_are_taken_for_what_they_hold(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "day,region,units,price ($),code,share,year\n"
        '2024-01-01,North,3,"1,234.50",007,12%,2020\n'
        "2024-01-02,South,,$2,012,3.5%,2021\n",
    )
    assert kinds(found) == {
        "day": "temporal",
        "region": "nominal",
        "units": "quantitative",
        "price ($)": "quantitative",
        "code": "nominal",
        "share": "quantitative",
        "year": "temporal",
    }
    assert list(found.column("price ($)").values) == [1234.5, 2.0]
    assert (found.column("price ($)").unit, found.column("share").unit) == ("$", "%")
    assert found.column("code").levels == ["007", "012"]
    units = facts_of(found)[2]
    assert (units.count, units.missing, units.low, units.whole) == (1, 1, 3.0, True)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("a,b\nx,1\ny,2\n", "t.csv"),
        ("a;b\nx;1,0\ny;2,0\n", "t.csv"),
        ("a\tb\nx\t1\ny\t2\n", "t.tsv"),
        ('[{"a": "x", "b": 1}, {"a": "y", "b": 2.0}]', "t.json"),
        ('{"columns": ["a", "b"], "data": [["x", 1], ["y", 2]]}', "t.json"),
        ('{"a": ["x", "y"], "b": [1, 2]}', "t.json"),
        ('{"rows": [{"a": "x", "b": 1}, {"a": "y", "b": 2}]}', ""),
        ('[["a", "b"], ["x", 1], ["y", 2]]', ""),
        ('{"a": "x", "b": 1}\n{"a": "y", "b": 2}\n', "t.ndjson"),
        ('{"a": "x", "b": 1}\n\n{"a": "y", "b": 2}', ""),
        ("\ufeffa,b\r\nx,1\r\ny,2\r\n", ""),
        ("a,b\nx,1\ny,2\n".encode("utf-16"), ""),
        ("a,b\nx,1\ny,2\n".encode("utf-16"), "t.csv"),
    ],
)
def test_the_same_table_comes_out_of_every_way_to_write_it(tmp_path: Path, content: str | bytes, name: str) -> None:
    found = table(tmp_path, content, name)
    assert kinds(found) == {"a": "nominal", "b": "quantitative"}
    assert list(found.column("b").values) == [1.0, 2.0]
    assert found.column("a").levels == ["x", "y"]


def test_what_is_no_number_of_a_column_of_numbers_is_missing_and_counted_and_too_much_of_it_makes_it_text(
    tmp_path: Path,
) -> None:
    few = table(tmp_path, "n\n" + "1\n" * 99 + "hello\n")
    assert kinds(few) == {"n": "quantitative"}
    assert few.notes == ["1 values of 'n' are no numbers."]
    late = table(tmp_path, "n\n" + "1\n" * 5000 + "hello\n" * 1000)
    assert kinds(late) == {"n": "nominal"}
    assert late.rows == 6000


def test_numbers_that_are_none_are_missing(tmp_path: Path) -> None:
    found = table(tmp_path, '[{"a": NaN}, {"a": Infinity}, {"a": 1e999}, {"a": -1e200}, {"a": 5}, {"a": null}]')
    assert (facts_of(found)[0].count, facts_of(found)[0].high) == (1, 5.0)
    assert table(tmp_path, "a\n1e999999999\n1e308\n7\n").column("a").values[2] == 7.0
    assert table(tmp_path, '[{"a": ' + "9" * 10_000 + '}, {"a": 5}]').rows == 2


def test_names_are_never_empty_or_twice_and_show_what_they_are() -> None:
    assert names_of(["a", "A", "", "a", "na\u202eme\x00\n"]) == ["a", "A (2)", "column 3", "a (3)", "name"]
    assert clean("x\u200b\u2066y\x1b[31m\n  z") == "xy [31m z"
    assert len(names_of(["x" * 1000])[0]) == 100


def test_formulas_stay_the_text_they_are(tmp_path: Path) -> None:
    found = table(tmp_path, 'what,n\n"=HYPERLINK(""http://x"")",1\n@SUM(A1),2\n')
    assert found.column("what").levels == ['=HYPERLINK("http://x")', "@SUM(A1)"]


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ("", "", "no rows"),
        ("a,b\n", "", "no rows"),
        ("[]", "x.json", "no rows"),
        ("[1, 2", "x.json", "no JSON"),
        ("3", "x.json", "no JSON"),
        ("[" * 100_000 + "]" * 100_000, "x.json", "too deeply"),
        ('{"a":' * 200 + "1" + "}" * 200, "x.json", "too deeply"),
        (b"\x00\x01\x02" * 100, "", "expected was CSV, .* and this is binary data: byte 0 is zero"),
        (Random(1).randbytes(5000), "x.csv", "this is binary data: byte"),
        (Random(1).randbytes(5000).replace(b"\0", b""), "x.csv", "of its first .* bytes are no characters"),
        (Random(1).randbytes(5000), "x.json", "binary data"),
        (b"PK\x03\x04" + b"sheet" * 10, "x.csv", "this is a ZIP archive, as Excel's files are"),
        ('a\n"' + "x" * 2_000_000 + '"\n', "", "field larger"),
    ],
)
def test_what_is_no_table_is_refused_with_a_sentence(
    tmp_path: Path, content: str | bytes, name: str, says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says) as refused:
        table(tmp_path, content, name)
    assert refused.value.next


@pytest.mark.parametrize(
    ("content", "limits"),
    [
        ("a\n" + "1\n" * 11, {"rows": 10}),
        (",".join("abcd") + "\n1,2,3,4\n", {"columns": 3}),
        ('[{"a": 1, "b": 2, "c": 3, "d": 4}]', {"columns": 3}),
        ("a\n" + "1\n" * 100, {"bytes": 50}),
    ],
)
def test_each_cap_holds_and_says_how_to_move_it(tmp_path: Path, content: str, limits: dict[str, int]) -> None:
    with pytest.raises(Exhausted, match=r"the cap is") as refused:
        table(tmp_path, content, "x.json" if content[0] == "[" else "", **limits)
    assert f"--cap {next(iter(limits))}=N" in refused.value.next


def test_caps_can_be_moved_and_not_beyond_their_ceilings() -> None:
    assert Limits.of({"rows": 3_000_000}).rows == 3_000_000
    for wrong in ({"rows": 10**9}, {"rows": 0}, {"seconds": -1}):
        with pytest.raises(InvalidArgument):
            Limits.of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1970-01-02", 1),
        ("1970/1/2", 1),
        ("1970-01-02T00:00:00Z", 1),
        ("1970-01-02 02:00:00+02:00", 1),
        ("2 Jan 1970", 1),
        ("Jan 2, 1970", 1),
        ("1/2/1970", 1),
        ("02.01.1970", 1),
        ("1970-02", 31),
        ("Q2 1970", 90),
        ("1970-13-01", None),
        ("hello", None),
    ],
)
def test_dates_are_read_as_people_write_them(text: str, days: float | None) -> None:
    assert time_of(text) == (None if days is None else days * DAY)


def test_numbers_are_read_as_people_write_them() -> None:
    assert number_of("-$1,234.5") == (-1234.5, "USD")
    assert number_of("12 %") == (12.0, "%")
    assert number_of("1.234,5", comma=True) == (1234.5, "")
    assert number_of("1,2,3") is None


def test_a_model_sees_few_rows_cut_short(tmp_path: Path) -> None:
    found = table(tmp_path, "a,b\n" + f"{'x' * 500},1\n" * 50)
    shown = sample(found)
    assert (len(shown), len(shown[0]["a"])) == (5, 60)
