"""The piece of a text that shows why it was found, as parts that are highlighted or not: nobody needs markup."""

from core.dewey.words import Term, places

Snippet = list[tuple[str, bool]]

LENGTH = 220  # characters
BEFORE = 60  # of them, before the first word
LOOKED_AT = 20_000  # characters of a long text


def snippet(text: str, terms: tuple[Term, ...]) -> Snippet:
    """The part of `text` with the most different words of `terms`; its beginning where there are none."""
    text = text[:LOOKED_AT]
    found = places(text, terms) if terms else []
    best = _best(text, found) if found else 0
    start = best - BEFORE if best > BEFORE else 0
    if start:  # not in the middle of a word
        space = text.find(" ", start, start + 20)
        start = space + 1 if space >= 0 else start
    end = min(len(text), start + LENGTH)
    shown: Snippet = [("…", False)] if start else []
    at = start
    for low, high in found:
        if low < at or high > end:
            continue
        if low > at:
            shown.append((text[at:low], False))
        shown.append((text[low:high], True))
        at = high
    if at < end:
        shown.append((text[at:end], False))
    if end < len(text):
        shown.append(("…", False))
    return [(" ".join(part.split("\n")), marked) for part, marked in shown]


def _best(text: str, found: list[tuple[int, int]]) -> int:
    """Where the window begins that holds the most different words."""
    best, most = found[0][0], 0
    for at, (low, _) in enumerate(found[:200]):
        inside = {text[a:b].casefold() for a, b in found[at : at + 40] if b <= low + LENGTH - BEFORE}
        if len(inside) > most:
            best, most = low, len(inside)
    return best
