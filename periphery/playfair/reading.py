"""Bytes of strangers become a table: CSV, TSV, JSON, JSON lines and Parquet. Formulas stay the text they are.

What a column holds is guessed from its first rows; the file is then read once into typed columns, and once more with a
column as text where too much of it was something else. So a million rows take eight bytes a cell, not sixty.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from periphery.playfair.limits import DEPTH, Limits
from periphery.playfair.tables import Filling, Kind, Table, clean, guess, names_of
from protos.errors import InvalidArgument

Format = Literal["csv", "tsv", "json", "ndjson", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}
SAMPLE = 5_000  # rows that the kinds are guessed from
BATCH = 4_096
FIELD_CHARACTERS = 1_000_000
STRANGE = 0.05  # of a column's values that may be none of its kind
LOOKED_AT = 65_536  # bytes at the beginning that tell text from other things
CONTROLS = 0.02  # of them that may drive a terminal: text has none, chance makes every tenth byte one
BEGINNINGS = {  # what is given most often instead of a table
    b"PK\x03\x04": "a ZIP archive, as Excel's files are",
    b"\x1f\x8b": "something packed by gzip",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}

Rows = Callable[[], Iterator[Sequence[str]]]


def read(path: Path, limits: Limits, *, name: str = "", format: str = "") -> tuple[Table, Format]:
    """The table in a file, and what format it was.

    Raises:
        InvalidArgument: it is none of these formats, broken, or has no rows.
        Exhausted: it is over a cap.
    """
    limits.check("bytes", path.stat().st_size, f"The data has {path.stat().st_size:,} bytes")
    found = _format(path, name, format)
    try:
        if found == "parquet":
            from periphery.playfair.parquet import read_parquet

            table = read_parquet(path, limits)
        else:
            table = _READERS[found](path, limits)
    except RecursionError:
        raise InvalidArgument(
            "The data is nested too deeply.", next=f"At most {DEPTH} levels; tables have two."
        ) from None
    except (ValueError, csv.Error) as error:
        raise InvalidArgument(f"The data is no {found.upper()}: {clean(str(error), 200)}.", next=_NEXT) from None
    if not table.rows:
        raise InvalidArgument("The data has no rows.", next="Give at least one row below the names of the columns.")
    for each in table.columns:
        if each.strange:
            table.notes.append(f"{each.strange:,} values of {each.name!r} are no {_WORDS[each.kind]}.")
    return table, found


_NEXT = "Say what it is with --input csv, tsv, json, ndjson or parquet, or mend it."
_WORDS = {"quantitative": "numbers", "temporal": "dates", "nominal": "texts"}


def _format(path: Path, name: str, asked: str) -> Format:
    with path.open("rb") as file:
        head = file.read(LOOKED_AT)
    if asked and asked not in ENDINGS.values():
        raise InvalidArgument(f"{clean(asked, 30)!r} is no format of data.", next=_NEXT)
    if asked == "parquet" or (not asked and head.startswith(b"PAR1")):
        return "parquet"
    _check_text(head)
    if asked:
        return asked  # type: ignore[return-value]  # looked up above
    head = head[:4096]
    known = ENDINGS.get(Path(name).suffix.lower())
    if known and known != "parquet":
        return known
    if head.lstrip()[:1] in (b"{", b"["):
        first = head.lstrip().split(b"\n", 1)[0].strip()
        return "ndjson" if first[:1] == b"{" and first[-1:] == b"}" and b"\n" in head.strip() else "json"
    return "tsv" if head.count(b"\t") > head.count(b",") + head.count(b";") else "csv"


def _check_text(head: bytes) -> None:
    """
    Raises:
        InvalidArgument: it is something else, which would come out as a chart of nonsense.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    seen = next((what for start, what in BEGINNINGS.items() if head.startswith(start)), "")
    if not seen and b"\0" in head:
        seen = f"binary data: byte {head.index(0):,} is zero"
    controls = sum(each < 32 and each not in b"\t\n\v\f\r\x1a\x1b" for each in head)
    if not seen and controls > CONTROLS * len(head):
        seen = f"binary data: {controls:,} of its first {len(head):,} bytes are no characters"
    if seen:
        raise InvalidArgument(
            f"The data is no table: expected was CSV, TSV, JSON, JSON lines or Parquet, and this is {seen}.", next=_NEXT
        )


def _encoding(path: Path) -> tuple[str, list[str]]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        chunk = file.read(1024**2)
        if chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16", []
        try:
            while chunk:
                decoder.decode(chunk)
                chunk = file.read(1024**2)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252", ["The data is not UTF-8; it was read as Windows-1252."]
    return "utf-8-sig", []


def _separated(path: Path, limits: Limits, separator: str = "") -> Table:
    encoding, notes = _encoding(path)
    errors = "replace" if encoding == "cp1252" else "strict"
    csv.field_size_limit(FIELD_CHARACTERS)

    def rows() -> Iterator[Sequence[str]]:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            yield from (row for row in csv.reader(file, delimiter=separator) if row)

    if not separator:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            separator = _separator(file.read(65536))
    first = next(rows(), None)
    if first is None:
        return Table([])
    limits.check("columns", len(first), f"The data has {len(first):,} columns")
    second = next(islice(rows(), 1, 2), [])
    headed = _is_header(first, second)
    if not headed:
        notes.append("The first row looks like data: the columns have numbers for names.")
    names = names_of(first if headed else [""] * len(first))
    return _fill(names, lambda: islice(rows(), int(headed), None), limits, notes, comma=separator == ";")


def _separator(text: str) -> str:
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    counts = {each: [line.count(each) for line in lines] for each in ",;\t|"}
    best = max(counts, key=lambda each: (min(counts[each], default=0) > 0, sum(counts[each])))
    return best if sum(counts[best]) else ","


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    kinds = [guess([each], "") for each in first]
    if "quantitative" in kinds or ("temporal" in kinds and guess(list(second[:1]), "") == "temporal"):
        return not second or sum(kind == "quantitative" for kind in kinds) < len(first) / 2
    return True


def _fill(names: list[str], rows: Rows, limits: Limits, notes: list[str], *, comma: bool = False) -> Table:
    """Reads the rows into columns; again where a guess was wrong."""
    sample = list(islice(rows(), SAMPLE))
    width = len(names)
    kinds: list[Kind] = [
        guess([row[at] for row in sample if at < len(row)], name, comma) for at, name in enumerate(names)
    ]
    while True:
        filling = [Filling(name, kind, comma) for name, kind in zip(names, kinds, strict=True)]
        ragged, count = 0, 0
        whole = rows()
        while batch := list(islice(whole, BATCH)):
            count += len(batch)
            if count > limits.rows:
                limits.check("rows", count, f"The data has more than {limits.rows:,} rows")
            for at, row in enumerate(batch):
                if len(row) != width:
                    ragged += 1
                    batch[at] = [*row[:width], *[""] * (width - len(row))]
            for each, texts in zip(filling, zip(*batch, strict=True), strict=True):
                each.extend(texts)
        wrong = [at for at, each in enumerate(filling) if each.column.strange > count * STRANGE]
        if not wrong:
            if ragged:
                notes.append(f"{ragged:,} rows have more or fewer cells than there are columns.")
            return Table([each.column for each in filling], notes)
        for at in wrong:
            kinds[at] = "nominal"


def _json(path: Path, limits: Limits) -> Table:
    encoding, notes = _encoding(path)
    text = path.read_text(encoding=encoding)
    _check_depth(text)
    found = json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    del text
    return _of_objects(lambda: iter(_records(found)), limits, notes)


def _check_depth(text: str) -> None:
    """
    Raises:
        RecursionError: it is nested more deeply than anything that is meant.
    """
    depth, inside, escaped = 0, False, False
    for each in text[:1_000_000]:
        if inside:
            if escaped:
                escaped = False
            elif each == "\\":
                escaped = True
            elif each == '"':
                inside = False
        elif each == '"':
            inside = True
        elif each in "[{":
            depth += 1
            if depth > DEPTH:
                raise RecursionError
        elif each in "]}":
            depth -= 1


def _records(found: Any) -> list[Any]:
    """The rows in what people write as JSON tables."""
    if isinstance(found, dict):
        if isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):
            return [dict(zip(map(str, found["columns"]), row, strict=False)) for row in found["data"]]
        lists = {key: each for key, each in found.items() if isinstance(each, list)}
        for each in lists.values():
            if each and isinstance(each[0], dict):
                return each
        if lists and len({len(each) for each in lists.values()}) == 1:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        if found and not any(isinstance(each, dict | list) for each in found.values()):
            return [{"name": key, "value": each} for key, each in found.items()]
        raise ValueError("it is an object without a list of rows")
    if not isinstance(found, list):
        raise ValueError("it is a single value")
    if found and isinstance(found[0], list):
        names, *rows = found
        return [dict(zip(map(str, names), row, strict=False)) for row in rows if isinstance(row, list)]
    if found and not isinstance(found[0], dict):
        return [{"value": each} for each in found]
    return found


def _lines(path: Path, limits: Limits) -> Table:
    encoding, notes = _encoding(path)

    def objects() -> Iterator[Any]:
        with path.open(encoding=encoding) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    _check_depth(line)
                    try:
                        yield json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda _: None)
                    except ValueError as error:
                        raise ValueError(f"line {number}: {error}") from None

    return _of_objects(objects, limits, notes)


def _of_objects(objects: Callable[[], Iterator[Any]], limits: Limits, notes: list[str]) -> Table:
    """A table of objects: a column for each key that any of them has, in the order in which they come."""
    keys: dict[str, None] = {}
    other = 0
    for count, each in enumerate(objects(), 1):
        limits.check("rows", count, f"The data has more than {limits.rows:,} rows")
        if isinstance(each, dict):
            for key in _flat(each):
                keys.setdefault(key)
            limits.check("columns", len(keys), f"The data has more than {limits.columns:,} columns")
        else:
            other += 1
    if other:
        notes.append(f"{other:,} rows are no objects and were left out.")
    order = list(keys)

    def rows() -> Iterator[Sequence[str]]:
        for each in objects():
            if isinstance(each, dict):
                flat = _flat(each)
                yield [flat.get(key, "") for key in order]

    return _fill(names_of(order), rows, limits, notes)


def _flat(given: dict[str, Any]) -> dict[str, str]:
    """An object's values as texts; objects within it become columns `outer.inner`, what is deeper stays JSON."""
    found: dict[str, str] = {}
    for key, value in given.items():
        if isinstance(value, dict):
            found.update({f"{key}.{inner}": _text(each) for inner, each in value.items()})
        else:
            found[str(key)] = _text(value)
    return found


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case _:
            return json.dumps(value, ensure_ascii=False)[:200]


_READERS: dict[str, Callable[[Path, Limits], Table]] = {
    "csv": lambda path, limits: _separated(path, limits),
    "tsv": lambda path, limits: _separated(path, limits, "\t"),
    "json": _json,
    "ndjson": _lines,
}
