"""How much Playfair takes on: each cap with its sentence, and how far a caller may move it."""

from dataclasses import dataclass, fields, replace
from typing import Self

from typing_extensions import TypedDict

from protos.errors import Exhausted, InvalidArgument

DEPTH = 40  # of a specification, of JSON, of an SVG
NAME_CHARACTERS = 100  # of a column
CELL_CHARACTERS = 10_000
LEVELS = 200_000  # different texts of one column


class Caps(TypedDict, total=False):
    """What a caller changes of the caps. Each may be lowered, and raised up to its ceiling."""

    bytes: int
    rows: int
    columns: int
    spec_bytes: int
    marks: int
    pixels: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """The caps in force."""

    bytes: int = 64 * 1024**2  # of the data as it came
    rows: int = 2_000_000
    columns: int = 500
    spec_bytes: int = 256 * 1024  # of a specification without its data, or of a diagram's source
    marks: int = 5_000  # points, bars, cells: what a person could tell apart, and more
    pixels: int = 16_000_000  # of a PNG
    seconds: float = 60  # for reading and for drawing, each

    @classmethod
    def of(cls, caps: Caps) -> Self:
        """
        Raises:
            InvalidArgument: a cap is beyond its ceiling, or not above zero.
        """
        for name, value in caps.items():
            ceiling = getattr(_CEILINGS, name)
            if not isinstance(value, int | float) or not 0 < value <= ceiling:
                raise InvalidArgument(f"The cap {name} may be at most {ceiling:,}.", next="Ask for less.")
        return replace(cls(), **caps)

    def check(self, cap: str, found: float, what: str) -> None:
        """
        Raises:
            Exhausted: `found` is over that cap. `what` says of what, as "the data has 12 rows".
        """
        most = getattr(self, cap)
        if found > most:
            ceiling = getattr(_CEILINGS, cap)
            raise Exhausted(
                f"{what}, and the cap is {most:,}.",
                next=f"Give less, or raise it: --cap {cap}=N, up to {ceiling:,}."
                if most < ceiling
                else "Give less: aggregate or split it beforehand.",
            )

    def as_words(self) -> dict[str, float]:
        """Each cap in force by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


_CEILINGS = Limits(
    bytes=256 * 1024**2,
    rows=5_000_000,
    columns=2_000,
    spec_bytes=2 * 1024**2,
    marks=50_000,
    pixels=64_000_000,
    seconds=300,
)
