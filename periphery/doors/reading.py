"""Reads what a client sent: JSON field by field, so that what is wrong is told by its name, as the real servers do.

Null is what is absent, and a field that nobody here knows is left alone: both protocols are lenient there, and clients
count on it.
"""

import base64
import json
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from protos.errors import InvalidArgument
from protos.v1.llm_pb2 import Image, Part

MOST = 2**31 - 1


class WrongField(InvalidArgument):
    """A field of the request is wrong; `param` is its name."""

    def __init__(self, message: str, *, next: str = "", param: str = "") -> None:
        super().__init__(message, next=next)
        self.param = param


class Fields:
    """One object of a request's body."""

    def __init__(self, value: Mapping[str, Any], path: str = "") -> None:
        self.value = value
        self.path = path

    def name(self, field: str) -> str:
        """How a field is called in an error."""
        return f"{self.path}.{field}" if self.path else field

    def wrong(self, field: str, what: str, *, next: str = "") -> WrongField:
        """The error that says what is wrong with a field."""
        name = self.name(field)
        return WrongField(f"{name}: {what}", next=next, param=name)

    def has(self, field: str) -> bool:
        """Whether it is there and not null."""
        return self.value.get(field) is not None

    def text(self, field: str, *, needed: bool = False) -> str:
        value = self._get(field, str, "a string", needed)
        return "" if value is None else str(value)

    def flag(self, field: str) -> bool:
        return bool(self._get(field, bool, "true or false"))

    def integer(self, field: str, *, least: int = 0, most: int = MOST) -> int | None:
        value = self._get(field, int, "a whole number")
        if value is None:
            return None
        if isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(field, f"is a whole number from {least} to {most}.")
        return int(value)

    def number(self, field: str) -> float | None:
        value = self._get(field, (int, float), "a number")
        if value is None:
            return None
        if isinstance(value, bool):
            raise self.wrong(field, "is a number.")
        return float(value)

    def object(self, field: str) -> "Fields | None":
        value = self._get(field, dict, "an object")
        return None if value is None else Fields(value, self.name(field))

    def objects(self, field: str) -> Iterator["Fields"]:
        for index, each in enumerate(self.items(field)):
            path = f"{self.name(field)}[{index}]"
            if not isinstance(each, dict):
                raise WrongField(f"{path} is an object.", param=path)
            yield Fields(each, path)

    def items(self, field: str) -> Sequence[Any]:
        return self._get(field, list, "a list") or []

    def texts(self, field: str) -> list[str]:
        """A list of strings, or one that stands alone."""
        value = self.value.get(field)
        many = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(many, list) or not all(isinstance(each, str) for each in many):
            raise self.wrong(field, "is a string, or a list of strings.")
        return many

    def json(self, field: str) -> str:
        """An object as JSON; empty where there is none."""
        value = self._get(field, dict, "an object")
        return "" if value is None else json.dumps(value, ensure_ascii=False)

    def _get(self, field: str, kind: type | tuple[type, ...], what: str, needed: bool = False) -> Any:
        value = self.value.get(field)
        if value is None:
            if needed:
                raise self.wrong(field, "is required.")
            return None
        if not isinstance(value, kind):
            raise self.wrong(field, f"is {what}.")
        return value


def body_of(content: bytes) -> Fields:
    """
    Raises:
        InvalidArgument: it is no JSON object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidArgument("The body is not valid JSON.", next="Send one JSON object.") from None
    if not isinstance(value, dict):
        raise InvalidArgument("The body is no JSON object.", next="Send one JSON object.")
    return Fields(value)


def picture_at(url: str, about: Fields, *, detail: str = "") -> Part:
    """A picture from a data: URL.

    Raises:
        WrongField: it is another address, which nobody would fetch, or no base64.
    """
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise about.wrong(
            "image_url" if about.has("image_url") else "source",
            "a picture is sent as it is; an address is never fetched from here.",
            next="Send it as a data: URL with base64.",
        )
    return picture(data, head.removeprefix("data:").partition(";")[0], about, detail=detail)


def picture(data: str, media_type: str, about: Fields, *, detail: str = "") -> Part:
    """A picture from its base64.

    Raises:
        WrongField: it is none.
    """
    try:
        made = base64.b64decode(data, validate=True)
    except (NotBase64, ValueError):
        raise WrongField(f"{about.path}: the picture is no base64.", param=about.path) from None
    return Part(image=Image(data=made, media_type=media_type, detail=detail if detail in ("low", "high") else ""))


def is_object(text: str) -> bool:
    """Whether `text` is a JSON object that can be written down and read again anywhere."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
