"""Redaction of what comes in pieces: a value that two chunks share is found all the same.

A strainer holds back only what may be the beginning of a value, in any of its forms, escaped or not: most of the time
that is nothing, so a stream of words flows as it comes. What it has handed on is final. A chunk with a zero byte is no
text, and is looked through as it stands: undoing escapes in an image costs five times as much and finds none.
"""

from codecs import getincrementaldecoder

from core.redaction.reading import Plain, is_plain
from core.redaction.redactor import Hit, Redactor, marker


class Strainer:
    """One stream. `hits` are the values that were seen in it, with their offsets in what came in."""

    def __init__(self, redactor: Redactor) -> None:
        self.hits: list[Hit] = []
        self._redactor = redactor
        self._held = b""
        self._covered = 0  # of the bytes that are held, those that belong to what was told already
        self._passed = 0  # bytes that came before what is held

    def feed(self, chunk: bytes) -> bytes:
        """What of the stream may be handed on now that `chunk` has come."""
        if self._redactor.is_empty and not self._held:
            self._passed += len(chunk)
            return chunk
        data = self._held + chunk if self._held else chunk
        escaped = b"\0" not in chunk
        hits = self._redactor.scan(data, escaped=escaped)
        end = self._border(data, escaped=escaped)
        whole = len(hits)
        for each in reversed(hits):
            if each.end <= end or len(data) - each.offset > 2 * self._redactor.longest:
                break  # or else: a find that goes on and on is told now
            end = min(end, each.offset)  # it stays whole: it may be the beginning of a longer one
            whole -= 1
        return self._pass(data, end, hits[:whole])

    def flush(self) -> bytes:
        """The rest: the stream has ended."""
        return self._pass(self._held, len(self._held), self._redactor.scan(self._held))

    def _pass(self, data: bytes, end: int, hits: list[Hit]) -> bytes:
        """Hands on what stands before `end`; of a find that goes on behind it, what follows is only left out."""
        pieces: list[bytes] = []
        covered = self._covered
        read = min(covered, end)
        for each in hits:
            if each.offset < covered:
                covered = max(covered, each.end)
            else:
                pieces += (data[read : each.offset], marker(each.name))
                self.hits.append(each._replace(offset=self._passed + each.offset, end=self._passed + each.end))
                covered = each.end
            read = min(covered, end)
        self._covered = max(0, covered - end)
        self._held = data[end:]
        self._passed += end
        return b"".join((*pieces, data[read:end]))

    def _border(self, data: bytes, *, escaped: bool) -> int:
        """Where what must be held back begins."""
        redactor = self._redactor
        tail = data[-redactor.longest :] if redactor.longest else b""
        begin = redactor.begins_at(tail)
        if escaped and not is_plain(tail):
            way = Plain(tail, beginning=True)
            index = redactor.begins_at(way.data)
            begin = min(begin, way.cut, way.source(index, index + 1)[0] if index < len(way.data) else begin)
        return len(data) - len(tail) + begin


class TextStrainer:
    """A strainer of text."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._strainer = Strainer(redactor)
        self._decoder = getincrementaldecoder("utf-8")("surrogatepass")
        self._is_idle = True

    def feed(self, piece: str) -> str:
        """What of the text may be handed on now."""
        if self._is_idle and self._redactor.is_empty:
            return piece
        self._is_idle = False
        return self._decoder.decode(self._strainer.feed(piece.encode("utf-8", "surrogatepass")))

    def flush(self) -> str:
        """The rest: the text has ended."""
        return self._decoder.decode(self._strainer.flush(), final=True)
