"""What counts as a word: how a text is written into the index, and how the same words are found in it again.

FTS5 splits a text at whatever is no letter and no digit. Before, three things are done to it here, to what is indexed
and to what is asked alike:

- *Folding*: case and diacritics go, compatible forms become one ("Café" is "cafe").
- *Identifiers* are found whole and by their parts: "core/app.py", "snake_case" and "CVE-2024-1234" are the phrases that
  splitting makes of them; "getUserName" is written as itself with its parts behind it.
- *Scripts without spaces* (Chinese, Japanese, and Korean for its endings) are written as pairs of neighbours, so any
  part of a sentence is a phrase. Thai, Khmer and Lao are not: there a run between spaces is one word, found by its
  beginning.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+")
CAMEL = re.compile(r"[^\W_]*[a-z0-9][A-Z][^\W_]*")  # of one word: sought in a text, a long word takes its square
HUMP = re.compile(r"[a-z0-9][A-Z]")
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PAIRED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
PAIRED = re.compile(f"[{_PAIRED}]+")
_PIECES = re.compile(f"[{_PAIRED}]+|[^{_PAIRED}]+")


@dataclass(frozen=True)
class Term:
    """Words that stand side by side in a text; of the last one, perhaps only its beginning."""

    words: tuple[str, ...]
    prefix: bool = False


def fold(text: str) -> str:
    """Without case and diacritics."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFC", "".join([each for each in plain if not unicodedata.combining(each)]))


def written(text: str) -> str:
    """`text` as the index takes it: folded, identifiers with their parts, pairs where there are no spaces."""
    text = _with_parts(text)
    if text.isascii():
        return text.lower()
    return PAIRED.sub(_pairs, fold(text))


def term_of(text: str, *, prefix: bool = False) -> Term | None:
    """What to look for where somebody wrote `text`; None where there is no letter and no digit in it."""
    if CAMEL.fullmatch(text):
        return Term((fold(text),), prefix)  # it is written whole, and people write it in any case
    words: list[str] = []
    for each in WORD.findall(fold(_with_parts(text))):
        for piece in _PIECES.findall(each):
            single = bool(PAIRED.match(piece))
            words += [piece[at : at + 2] for at in range(max(1, len(piece) - 1))] if single else [piece]
    if not words:
        return None
    # One character of a script of pairs is the beginning of a pair.
    return Term(tuple(words), prefix or (len(words[-1]) == 1 and bool(PAIRED.match(words[-1]))))


def places(text: str, terms: tuple[Term, ...]) -> list[tuple[int, int]]:
    """Where in `text`, as it was written by people, the words of `terms` stand: from and to, in order."""
    wholes = {word for term in terms for word in (term.words[:-1] if term.prefix else term.words)}
    beginnings = tuple({term.words[-1] for term in terms if term.prefix})
    found: list[tuple[int, int]] = []
    for start, end, word in _words_of(text):
        if word in wholes or (beginnings and word.startswith(beginnings)):
            if found and start <= found[-1][1]:  # pairs overlap
                found[-1] = (found[-1][0], max(end, found[-1][1]))
            else:
                found.append((start, end))
    return found


def _words_of(text: str) -> Iterator[tuple[int, int, str]]:
    for match in WORD.finditer(text):
        word = match[0]
        if PAIRED.search(word):
            for piece in _PIECES.finditer(word):
                start = match.start() + piece.start()
                if not PAIRED.match(piece[0]):
                    yield start, start + len(piece[0]), fold(piece[0])
                    continue
                for at in range(len(piece[0])):
                    yield start + at, start + min(at + 2, len(piece[0])), fold(piece[0][at : at + 2])
            continue
        yield match.start(), match.end(), fold(word)
        if CAMEL.fullmatch(word):
            for part in PARTS.finditer(word):
                yield match.start() + part.start(), match.start() + part.end(), fold(part[0])


def _with_parts(text: str) -> str:
    """Identifiers with humps, each with its parts behind it."""

    def parted(match: re.Match[str]) -> str:
        word = match[0]
        return f"{word} {' '.join(PARTS.findall(word))}" if HUMP.search(word) else word

    return WORD.sub(parted, text) if HUMP.search(text) else text


def _pairs(match: re.Match[str]) -> str:
    run = match[0]
    return f" {' '.join(run[at : at + 2] for at in range(len(run)))} "
