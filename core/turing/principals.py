"""Principals, as a grant names them: operator, mad:NAME, run:ID, client:NAME."""

import re

from protos.errors import InvalidArgument

NAMED = re.compile(r"(?:(?:mad|client):)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}|run:[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def principal_of(text: str) -> str:
    """The principal that `text` names; a bare name is a MAD.

    Raises:
        InvalidArgument: it names none.
    """
    if not NAMED.fullmatch(text):
        raise InvalidArgument(
            f"{text[:100]!r} is no principal.", next="It is mad:NAME, run:ID, client:NAME or operator."
        )
    return text if text == "operator" or ":" in text else f"mad:{text}"
