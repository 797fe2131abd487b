"""Redaction of what comes in pieces: a value that two chunks share is found all the same.

A strainer holds back only what may be the beginning of a value, in any of its forms, escaped or not: most of the time
that is nothing, so a stream of words flows as it comes. What it has handed on is final. A chunk with a zero byte is no
text as a whole: escapes are undone only in the ASCII within it, of which an archive holds some and an image little.

Where much is held back, each look is at all of it. So what comes in small pieces is then gathered first.
"""

from codecs import getincrementaldecoder

from core.redaction.reading import Plain, is_plain
from core.redaction.redactor import Hit, Redactor, marker

PATIENCE = 64  # bytes that are held back before small pieces are gathered
SMALL = 4  # such a piece has less than that part of what is held


class Strainer:
    """One stream. `hits` are the values that were seen in it, with their offsets in what came in."""

    def __init__(self, redactor: Redactor) -> None:
        self.hits: list[Hit] = []
        self._redactor = redactor
        self._held = b""
        self._gathered = b""  # what has come behind that, and was not looked at
        self._covered = 0  # of the bytes that are held, those that belong to what was told already
        self._passed = 0  # bytes that came before what is held

    def feed(self, chunk: bytes) -> bytes:
        """What of the stream may be handed on now that `chunk` has come."""
        if self._redactor.is_empty and not self._held:
            self._passed += len(chunk)
            return chunk
        if len(self._held) > PATIENCE:
            self._gathered += chunk
            if len(self._gathered) * SMALL < len(self._held):
                return b""
            chunk, self._gathered = self._gathered, b""
        data = self._held + chunk if self._held else chunk
        binary = b"\0" in chunk
        hits = self._redactor.scan(data, binary=binary)
        end = self._border(data, binary=binary)
        whole = len(hits)
        for each in reversed(hits):
            if each.end <= end or len(data) - each.offset > 2 * self._redactor.longest:
                break  # or else: a find that goes on and on is told now
            end = min(end, each.offset)  # it stays whole: it may be the beginning of a longer one
            whole -= 1
        return self._pass(data, end, hits[:whole])

    def flush(self) -> bytes:
        """The rest: the stream has ended."""
        data, self._gathered = self._held + self._gathered, b""
        return self._pass(data, len(data), self._redactor.scan(data))

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

    def _border(self, data: bytes, *, binary: bool) -> int:
        """Where what must be held back begins."""
        redactor = self._redactor
        tail = data[-redactor.longest :] if redactor.longest else b""
        begin = redactor.begins_at(tail)
        start = redactor.text_at_end(tail) if binary else 0
        text = tail[start:] if start else tail
        if not is_plain(text):
            way = Plain(text, beginning=True)
            index = redactor.begins_at(way.data)
            begin = min(begin, start + way.cut)
            if index < len(way.data):
                begin = min(begin, start + way.source(index, index + 1)[0])
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
