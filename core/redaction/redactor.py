"""Finds what is secret in what is about to be written, and leaves its name in its place.

One set of values for the whole core: Turing and Fiedler teach it every value they open, the canaries every decoy they
lay out. Whoever writes (journal, log, blob, prompt, error) asks it first. Until something is learnt that costs one look
at an attribute.

How it is found. An automaton looks for a short piece from the middle of each form of each value, all at once, and
where a piece is the whole form is compared. Pieces keep the automaton small (10,000 values are some 100,000 forms),
and the middle is where values differ that begin alike. Where the pieces are few, sieves look first: they tell ten
times as quickly that there is nothing. It looks twice: in the text as it stands, and in the text with its escapes
undone (`reading`). What was found overlapping is one find.

How it learns. Building an automaton takes longer the more it holds, and leases come one by one. So there are several,
each up to eight times as large as the one before: what is new goes into the smallest, and what is full is emptied into
the next. A value that was forgotten is passed over and goes when its automaton is next built. Who has learnt a value,
or hears that it is known already, can rely on it: it is entered and filed in one step.
"""

import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from core.redaction.forms import Form, forms_of
from core.redaction.reading import LONGEST, Plain, is_plain, plain

SHORTEST = 8  # bytes of a value: what is shorter stands in ordinary text by chance
CERTAIN, VARIED = 16, 8  # bytes, and different ones, from which on a value is certain: "localhost:5432" is not
PIECE = 12  # bytes of a form that the automaton looks for
FIRST = 32  # values of the smallest automaton
GROWTH = 8
QUICK = 64  # values up to which an automaton may be of the kind that is quick and large
SIEVE, SIEVES = 60, 10  # pieces that the processor's vectors look for at once, at 7 GB/s; and how often that pays

_WORD = re.compile(rb"[A-Za-z_.:/]+|sha256:[0-9a-f]*")
_IS_TEXT = bytes(9 <= each <= 13 or 27 <= each <= 127 for each in range(256))  # 1 for each byte that is text
_TEXT = b"\1" * 9  # within binary data: long enough for an escaped value
_TEXT_AT_END = re.compile(rb"(?<![\t-\r\x1b-\x7f])[\t-\r\x1b-\x7f]*\Z")
_ODD = re.compile(r"[^A-Za-z0-9._/-]")
_HALF_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*(\\(?:u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?)\Z")


class Hit(NamedTuple):
    """Where a value was seen, and how it was written.

    `certain`: the value is long and varied enough that it cannot stand there by chance or custom.
    """

    name: str
    encoding: str
    offset: int
    end: int
    certain: bool = True


@dataclass(eq=False, slots=True)
class _Value:
    name: str
    forms: list[Form]
    certain: bool
    gone: bool = False


class Redactor:
    """The values that must not be written down."""

    def __init__(self) -> None:
        self.longest = 0  # bytes that a known value can take in a text, escaped in whatever way
        self.is_empty = True
        self._values: dict[str, dict[bytes, _Value]] = {}
        self._automata: list[_Automaton] = []
        self._lock = threading.Lock()

    # --- learning

    def learn(self, name: str, value: bytes) -> None:
        """From now on `value` is not written down. A name may have several values: versions, while both are good.

        What is no `is_secret` is not learnt: it would be found in ordinary text. Who keeps secrets refuses it.
        """
        self.learn_all([(name, value)])

    def learn_all(self, named: Iterable[tuple[str, bytes]]) -> None:
        """`learn` for many at once: 10,000 take about two seconds, once, when the next thing is written."""
        made: list[tuple[str, bytes, _Value]] = []
        for name, value in named:
            if not is_secret(value) or value in self._values.get(name, ()):
                continue
            certain = len(value) >= CERTAIN and len(set(value)) >= VARIED
            made.append((name, value, _Value(_ODD.sub("_", name)[:64], forms_of(value), certain)))
        with self._lock:
            new = []
            for name, value, each in made:
                known = self._values.setdefault(name, {})
                if value not in known:  # nor has another thread been quicker
                    known[value] = each
                    new.append(each)
            if new:
                self.longest = max(self.longest, *(LONGEST * len(form.text) for each in new for form in each.forms))
                self._file(new)
                self.is_empty = False

    def forget(self, name: str) -> None:
        """The values of that name may be written again: a decoy of a run that is over, a secret that was removed."""
        with self._lock:
            for each in self._values.pop(name, {}).values():
                each.gone = True
            if not self._values:
                self._automata = []
                self.longest = 0
                self.is_empty = True

    # --- finding

    def scan(self, data: bytes, *, binary: bool = False) -> list[Hit]:
        """Every known value in `data`, in order; of what overlaps, one that spans all of it.

        `binary`: it is no text but may hold some (an archive does): escapes are undone in its ASCII only.
        """
        if self.is_empty:
            return []
        found = self._found(data)
        if binary:
            found += self._found_in_text_of(data)
        elif not is_plain(data) and self._found(plain(data)):
            found += self._found_escaped(data)
        return _merged(found) if len(found) > 1 else found

    def redact(self, data: bytes) -> bytes:
        """`data` with `[secret NAME]` for each known value.

        What was UTF-8 still is; what was JSON, too, unless the value has quotes that are the JSON's own.
        """
        hits = self.scan(data)
        if not hits:
            return data
        pieces: list[bytes] = []
        read = 0
        for each in hits:
            before = data[read : each.offset]
            if half := _HALF_ESCAPE.search(before):  # the value begins like the rest of an escape
                before = before[: half.start(1)]
            pieces += (before, marker(each.name))
            read = each.end
            last = data[each.offset : each.end]
            for _ in range(len(last) - len(last.rstrip(b"\\"))):  # in JSON there are twice as many
                read += data.startswith(b"\\", read)
        return b"".join((*pieces, data[read:]))

    def redact_text(self, text: str) -> str:
        """`redact` for text."""
        if self.is_empty:
            return text
        data = text.encode("utf-8", "surrogatepass")
        redacted = self.redact(data)
        if redacted is data:
            return text
        try:
            return redacted.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # a value that is no text has cut a character in two
            return redacted.decode("utf-8", "replace")

    def redact_tree(self, value: object, known: str = "") -> object:
        """A JSON value with every string in it redacted, but for what stands in `known`; a number becomes 0.

        So what was text is text, and what was a number is one: who reads it again finds it as he expects it.
        """
        if isinstance(value, str):
            return value if value in known else self.redact_text(value)
        if isinstance(value, dict):
            return {self.redact_text(key): self.redact_tree(each, known) for key, each in value.items()}
        if isinstance(value, list):
            return [self.redact_tree(each, known) for each in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return 0 if self._is_told_by(str(value).encode()) else value
        return value

    def _is_told_by(self, number: bytes) -> bool:
        """Whether a number holds a value; a short one only as all of its digits, since a time has many."""
        return any(
            each.certain or not (number[: each.offset][-1:].isdigit() or number[each.end :][:1].isdigit())
            for each in self.scan(number)
        )

    def begins_at(self, data: bytes) -> int:
        """Where in `data` begins what may be the beginning of a value and ends with it; its length if nowhere."""
        return min((each.begins_at(data) for each in self._automata if each.values), default=len(data))

    def text_at_end(self, data: bytes) -> int:
        """Where in binary `data` the text begins with which it ends."""
        found = _TEXT_AT_END.search(data)
        return found.start() if found else 0

    def _found_escaped(self, data: bytes, at: int = 0) -> Iterator[Hit]:
        """What is found in `data` once nothing in it is escaped; `at` is where it begins."""
        way = Plain(data)
        for each in self._found(way.data):
            start, end = way.source(each.offset, each.end)
            encoding = each.encoding if each.encoding != "raw" else "escaped"
            yield Hit(each.name, encoding, at + start, at + end, each.certain)

    def _found_in_text_of(self, data: bytes) -> Iterator[Hit]:
        """The same in each stretch of text that is long enough for an escaped value: first in all of them at once."""
        texts = [(start, text) for start, text in _texts_of(data) if not is_plain(text)]
        if texts and self._found(plain(b"\0".join(text for _, text in texts))):
            for start, text in texts:
                yield from self._found_escaped(text, start)

    def _found(self, data: bytes) -> list[Hit]:
        found: list[Hit] = []
        for each in self._automata:
            if each.values:
                found += each.find(data)
        return found

    def _file(self, new: list[_Value]) -> None:
        """Puts `new` into the smallest automaton that has room for it and for all that is in smaller ones."""
        kept = self._automata
        for index in count():  # pragma: no branch
            new = [*(kept[index].standing() if index < len(kept) else ()), *new]
            if len(new) <= FIRST * GROWTH**index:
                break
        self._automata = [*(_Automaton([]) for _ in range(index)), _Automaton(new), *kept[index + 1 :]]


class _Automaton:
    """Some values, looked for together. Built when it is first asked."""

    def __init__(self, values: list[_Value]) -> None:
        self.values = values
        self._search: BytesAhoCorasick | None = None
        self._sieves: list[BytesAhoCorasick] = []
        self._beginnings: _Beginnings | None = None
        self._forms: list[list[tuple[int, Form, _Value]]] = []  # of each piece: where it stands in which forms
        self._lock = threading.Lock()

    def standing(self) -> list[_Value]:
        """Those that were not forgotten."""
        return [each for each in self.values if not each.gone]

    def find(self, data: bytes) -> list[Hit]:
        """Every form of a value in `data`."""
        if self._search is None:
            self._build()
        assert self._search is not None
        if self._sieves and not any(each.find_matches_as_indexes(data) for each in self._sieves):
            return []
        return [
            Hit(value.name, form.encoding, start - offset, start - offset + len(form.text), value.certain)
            for piece, start, _ in self._search.find_matches_as_indexes(data, overlapping=True)
            for offset, form, value in self._forms[piece]
            if start >= offset and not value.gone and data.startswith(form.text, start - offset)
        ]

    def begins_at(self, data: bytes) -> int:
        """Where in `data` begins what may be the beginning of a form and ends with it; its length if nowhere."""
        if self._beginnings is None:
            self._build()
        assert self._beginnings is not None
        return self._beginnings.find(data)

    def _build(self) -> None:
        with self._lock:
            if self._search is not None:
                return
            pieces: dict[bytes, list[tuple[int, Form, _Value]]] = {}
            standing = self.standing()
            for value in standing:
                for form in value.forms:
                    offset = max(0, (len(form.text) - PIECE) // 2)
                    piece = form.text[offset : offset + PIECE]
                    pieces.setdefault(piece, []).append((offset, form, value))
            kind = Implementation.DFA if len(self.values) <= QUICK else Implementation.ContiguousNFA
            self._forms = list(pieces.values())
            self._beginnings = _Beginnings([form.text for value in standing for form in value.forms])
            if len(pieces) <= SIEVE * SIEVES:
                self._sieves = [
                    BytesAhoCorasick(list(islice(pieces, start, start + SIEVE)), matchkind=MatchKind.LeftmostFirst)
                    for start in range(0, len(pieces), SIEVE)
                ]
            self._search = BytesAhoCorasick(list(pieces), implementation=kind)


class _Beginnings:
    """How the forms begin."""

    def __init__(self, forms: list[bytes]) -> None:
        self._forms = sorted(forms)
        self._firsts = {each[:length] for each in forms for length in (1, 2, 3)}
        self._longest = max(map(len, forms), default=0)

    def find(self, data: bytes) -> int:
        end = len(data)
        for start in range(max(0, end - self._longest + 1), end):
            if data[start : start + 3] in self._firsts:
                rest = data[start:]
                index = bisect_left(self._forms, rest)
                if index < len(self._forms) and self._forms[index].startswith(rest):
                    return start
        return end


def is_secret(value: bytes) -> bool:
    """Whether a value can be told from ordinary text: it has eight bytes, and up to 15 are not one of its words.

    A word is made of letters and of what joins them in names: a state, a kind, the name of an act or a participant.
    Were "operator" or "cancelled" taken out, no program could go by what is left.
    """
    return len(value.strip()) >= SHORTEST and not (len(value) < CERTAIN and _WORD.fullmatch(value.strip()))


def marker(name: str) -> bytes:
    """What stands in the place of a value."""
    return f"[secret {name}]".encode()


def _texts_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The stretches of text in binary `data`, and where they begin."""
    kinds = data.translate(_IS_TEXT)  # so that the searching is C's: a pattern takes ten times as long
    start = kinds.find(_TEXT)
    while start >= 0:
        end = kinds.find(0, start)
        end = end if end >= 0 else len(data)
        yield start, data[start:end]
        start = kinds.find(_TEXT, end)


def _merged(hits: list[Hit]) -> list[Hit]:
    """What overlaps made one, under the name of the longest."""
    made: list[Hit] = []
    widest = 0
    for each in sorted(hits, key=lambda hit: (hit.offset, -hit.end)):
        if made and each.offset < made[-1].end:
            last = made[-1]
            if each.end - each.offset > widest:
                widest, last = each.end - each.offset, last._replace(name=each.name, encoding=each.encoding)
            made[-1] = last._replace(end=max(last.end, each.end), certain=last.certain or each.certain)
        else:
            made.append(each)
            widest = each.end - each.offset
    return made
