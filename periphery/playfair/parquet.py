"""Parquet, batch by batch through a reader in Rust: what is not asked for is never in memory at once."""

import math
from array import array
from pathlib import Path
from typing import Any

from periphery.playfair.limits import Limits
from periphery.playfair.tables import MOST, Filling, Kind, Table, clean, names_of
from protos.errors import Error

BATCH = 16_384
_AGES = 8.64e12  # seconds: a date farther off is none, for Vega
_SECONDS = {"Second": 1.0, "s": 1.0, "ms": 1e3, "µs": 1e6, "us": 1e6, "ns": 1e9}


def read_parquet(path: Path, limits: Limits) -> Table:
    """
    Raises:
        ValueError: it is no Parquet, or a broken one.
        Exhausted: it is over a cap.
    """
    from arro3.io import read_parquet as batches_of  # type: ignore[import-not-found]

    try:
        reader = batches_of(str(path), batch_size=BATCH)
        fields = [reader.schema.field(at) for at in range(len(reader.schema))]
        limits.check("columns", len(fields), f"The data has {len(fields):,} columns")
        filling = [_Filling(name, field) for name, field in zip(names_of(f.name for f in fields), fields, strict=True)]
        rows = 0
        for batch in reader:
            rows += batch.num_rows
            limits.check("rows", rows, f"The data has at least {rows:,} rows")
            for at, each in enumerate(filling):
                each.extend(batch.column(at))
    except (Error, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001  the reader's errors and panics have no class of their own: a broken file
        raise ValueError(clean(str(error), 200)) from None
    return Table([each.filling.column for each in filling])


class _Filling:
    """A column of a Parquet file while it is read."""

    def __init__(self, name: str, field: Any) -> None:
        self._type = str(field.type).replace("arro3.core.DataType", "").strip().strip("<>").strip()
        self.filling = Filling(name, _kind(self._type))
        self._divisor = 1.0
        if self._type.startswith("Timestamp"):
            unit = self._type.removeprefix("Timestamp(").rstrip(")").split(",")[0]
            self._divisor = _SECONDS.get(unit, 1e6)
        elif self._type == "Date64":
            self._divisor = 1e3

    def extend(self, values: Any) -> None:
        """Takes the next batch."""
        from arro3.core import DataType  # type: ignore[import-not-found]

        column = self.filling.column
        if column.kind == "nominal":
            self.filling.extend(["" if each is None else _text(each) for each in values.to_pylist()])
            return
        if column.kind == "temporal":
            whole = values.cast(DataType.int32() if self._type == "Date32" else DataType.int64()).to_pylist()
            scale = 86_400.0 if self._type == "Date32" else 1 / self._divisor
            times = (math.nan if each is None else each * scale for each in whole)
            column.values.extend(array("d", (each if abs(each) <= _AGES else math.nan for each in times)))
            return
        numbers = array("d", (_number(each) for each in values.to_pylist()))
        column.digits = column.digits and self._type.startswith(("Int", "UInt"))
        column.values.extend(numbers)


def _kind(type: str) -> Kind:
    if type.startswith(("Int", "UInt", "Float", "Decimal")):
        return "quantitative"
    return "temporal" if type.startswith(("Timestamp", "Date")) else "nominal"


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    number = float(value)
    return number if abs(number) <= MOST else math.nan


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return f"{len(value):,} bytes"
        case _:
            return str(value)[:20_000]
