"""Text of strangers without the characters that nobody sees: they hide words from people and show them to models."""

import unicodedata

_MEANT = {"\n", "\t", "\u200c", "\u200d"}  # the joiners are part of how words of some scripts, and emoji, are written
_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs")  # format (Cf) has zero-width and bidirectional marks, and the tag characters
_SELECTORS = range(0xE0100, 0xE01F0)  # of variants; in a row they carry bytes


def printable(text: str) -> str:
    """`text` without control, format, private and unassigned characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each for each in text if each in _MEANT or _is_seen(each))


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN and ord(character) not in _SELECTORS
