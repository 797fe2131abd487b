"""Families as text for Prometheus: the exposition format, version 0.0.4.

Names follow from OpenTelemetry's as its specification translates them: dots become underscores, the unit is written
out behind the name, a counter ends in `_total`.
"""

from collections.abc import Iterable, Iterator, Mapping

from core.telemetry.meters import Distribution, Family, Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNITS = {"s": "seconds", "By": "bytes"}


def exposed(families: Iterable[Family]) -> str:
    """The whole page."""
    return "".join(f"{line}\n" for each in families if each.points for line in _lines(each))


def exposed_name(family: Family) -> str:
    """What a family is called there."""
    name, unit = family.name.replace(".", "_"), UNITS.get(family.unit, "")
    if unit and not name.endswith(unit):
        name = f"{name}_{unit}"
    return f"{name}_total" if family.kind is Kind.COUNTER else name


def _lines(family: Family) -> Iterator[str]:
    name = exposed_name(family)
    yield f"# HELP {name} {_escaped(family.help)}"
    yield f"# TYPE {name} {family.kind}"
    for point in family.points:
        if not isinstance(point.value, Distribution):
            yield f"{name}{_labels(point.labels)} {_number(point.value)}"
            continue
        count = 0
        for bound, more in zip((*point.value.bounds, float("inf")), point.value.counts, strict=True):
            count += more
            yield f"{name}_bucket{_labels({**point.labels, 'le': _number(bound)})} {count}"
        yield f"{name}_sum{_labels(point.labels)} {_number(point.value.sum)}"
        yield f"{name}_count{_labels(point.labels)} {count}"


def _labels(labels: Mapping[str, str]) -> str:
    told = ",".join(f'{name.replace(".", "_")}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(value) if isinstance(value, int) else repr(float(value))
