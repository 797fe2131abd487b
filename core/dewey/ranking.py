"""BM25 over the few documents of a pool, by their texts: what each word of the query is worth in each of them.

FTS5 has a `bm25` of its own. It counts, for each query, in how many documents of its table each word is, from one end
to the other: with a word that half of a million messages have, that alone takes longer than a search may. Here a
word's rarity is estimated from how dense it lies among the newest (`Density`), and the rest is counted in the pool.
"""

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

from core.dewey.words import Term, written

K1, B = 1.2, 0.6
TITLE = 4.0  # what a word counts for there
USUAL_LENGTH = 400.0  # characters
HALF_LIFE_S = 14 * 86_400.0
BESIDE = 1.5  # for words that stand side by side, as they were asked for
LEAST = 0.05  # every word being there at all is worth something, however common it is

_SPACES = str.maketrans(dict.fromkeys(string.punctuation + string.whitespace, " "))


@dataclass(frozen=True)
class Density:
    """How many of so many documents have a term."""

    having: int
    among: int

    @property
    def rarity(self) -> float:
        """The idf of BM25, never negative."""
        return math.log(1 + (self.among - self.having + 0.5) / (self.having + 0.5))


class Ranking:
    """The words of one query, weighed. `groups`: of each, any term will do."""

    def __init__(self, groups: Sequence[Sequence[tuple[Term, Density]]]) -> None:
        self._groups = [[(_needle(term), density.rarity) for term, density in group] for group in groups]
        asked = [term for group in groups for term, _ in group]
        self._whole = f" {' '.join(word for term in asked for word in term.words)}" if len(asked) > 1 else ""

    def score(self, title: str, body: str, *, weight: float, age_s: float) -> float:
        """What a document is worth; higher is better. `weight` is what its kind of thing counts for."""
        head, text = _plain(title), _plain(body)
        norm = K1 * (1 - B + B * len(body) / USUAL_LENGTH)
        score = LEAST
        for group in self._groups:
            for needle, rarity in group:
                found = text.count(needle) + TITLE * head.count(needle)
                if not found and len(group) == 1:
                    found = 1  # it is there, in a form or a place that was not looked at
                score += rarity * found * (K1 + 1) / (found + norm)
        if self._whole and (self._whole in text or self._whole in head):
            score *= BESIDE
        return score * weight * (1 + math.pow(0.5, max(0.0, age_s) / HALF_LIFE_S))


def _needle(term: Term) -> str:
    return f" {' '.join(term.words)}" + ("" if term.prefix else " ")


def _plain(text: str) -> str:
    """Words with a space on either side."""
    return f" {(text.lower() if text.isascii() else written(text)).translate(_SPACES)} "
