"""Text from programs, made fit to be shown and to be read by a model: no escape sequences, no control characters."""

import re

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x1b\\|\x07|$)"  # OSC, DCS, SOS, PM, APC: titles, links, payloads
    r"|\x1b[ -/]*[0-~]"  # two characters and a few more
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)(?=[^\n])")  # a progress bar: what was drawn over
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` as a person at a plain terminal would have seen it in the end."""
    text = _SEQUENCES.sub("", text)
    if "\r" in text:
        text = _OVERWRITTEN.sub("", text.replace("\r\n", "\n"))
    if "\b" in text:
        text = _erased(text)
    return _UNFIT.sub("", text)


def _erased(text: str) -> str:
    kept: list[str] = []
    for each in text:
        if each != "\b":
            kept.append(each)
        elif kept and kept[-1] != "\n":
            kept.pop()
    return "".join(kept)


def shortened(text: str, characters: int) -> str:
    """`text`, or its start and its longer end with a note of what is missing between."""
    if len(text) <= characters:
        return text
    note = f"\n[… {len(text) - characters:,} characters left out …]\n"
    room = max(characters - len(note), 2)
    head = room // 3
    return text[:head] + note + text[len(text) - (room - head) :]


def tail(text: str, size: int) -> str:
    """The end of `text`: at most `size` bytes, beginning with a whole line where there is one."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= size:
        return text
    cut = encoded[-size:].decode("utf-8", "ignore")
    _, newline, rest = cut.partition("\n")
    return rest if newline and rest.strip() else cut
