"""The log's last step: whatever reaches standard error has been looked through.

Not a step in the chain that renders our own lines, but the stream behind it: the libraries' warnings, tracebacks of
threads and of the interpreter itself come that way too. Each write is looked through by itself; writers of lines write
whole lines.
"""

from typing import TextIO

from core.redaction.redactor import Redactor


class Strained:
    """A text stream that shows no known value."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream, self._redactor = stream, redactor

    def write(self, text: str) -> int:
        """Writes what may be written of `text`; returns the length of all of it."""
        self._stream.write(self._redactor.redact_text(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
