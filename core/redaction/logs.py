"""The log's last step: whatever reaches standard error has been looked through.

Not a step in the chain that renders our own lines, but the stream behind it: the libraries' warnings, tracebacks of
threads and of the interpreter itself come that way too. Text is looked through in whole lines: a line that is written
in pieces waits for its end, or for a flush. There is no way around: neither to the bytes below nor to the stream.
"""

import threading
from collections.abc import Iterable
from typing import TextIO

from core.redaction.redactor import Redactor

LONGEST = 1 << 20  # characters of a line that wait for its end
_PASSED = frozenset({"closed", "encoding", "errors", "fileno", "isatty", "line_buffering", "mode", "name", "writable"})


class Strained:
    """A text stream that shows no known value."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream, self._redactor = stream, redactor
        self._begun = ""  # a line without its end
        self._lock = threading.RLock()  # a signal may come in the middle, and somebody may write about it

    def write(self, text: str) -> int:
        """Writes what may be written of `text`; returns the length of all of it."""
        with self._lock:
            self._begun += text
            whole = len(self._begun) if len(self._begun) > LONGEST else self._begun.rfind("\n") + 1
            self._pass(whole)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each of them."""
        for each in lines:
            self.write(each)

    def flush(self) -> None:
        """Writes what waits, too."""
        with self._lock:
            self._pass(len(self._begun))
            self._stream.flush()

    def _pass(self, size: int) -> None:
        if size:
            text, self._begun = self._begun[:size], self._begun[size:]
            self._stream.write(self._redactor.redact_text(text))

    def __getattr__(self, name: str) -> object:
        if name not in _PASSED:
            raise AttributeError(name)
        return getattr(self._stream, name)
