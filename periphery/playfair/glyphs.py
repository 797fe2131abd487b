"""Which scripts a PNG cannot show, because no font of the image has their letters.

An SVG keeps its texts, and whoever looks at it has fonts; in a PNG what has no glyph is a box. A font says what it has
in its table `cmap`, of which the two forms that matter are read here: the fonts are ours, not a stranger's.
"""

import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path

FONTS = Path("/usr/share/fonts")
_NAMES = {"Cjk": "Chinese", "Hiragana": "Japanese", "Katakana": "Japanese", "Hangul": "Korean"}


def unshown(text: str) -> list[str]:
    """The scripts whose letters in `text` no font here has, sorted; "emoji" for pictures. Empty where all are shown."""
    wanted = {each for each in text if not each.isascii() and unicodedata.category(each) in ("Lu", "Ll", "Lo", "So")}
    fonts = sorted(FONTS.rglob("*.ttf")) if wanted else []
    for font in fonts:
        data = font.read_bytes()
        for first, last in _ranges(data):
            wanted -= {each for each in wanted if first <= ord(each) <= last}
    return sorted({_script(each) for each in wanted}) if fonts else []


def _script(letter: str) -> str:
    if unicodedata.category(letter) == "So":
        return "emoji"
    name = unicodedata.name(letter, "Unknown").partition(" ")[0].capitalize()
    return _NAMES.get(name, name)


def _ranges(font: bytes) -> Iterator[tuple[int, int]]:
    """The first and the last of each row of code points that a TrueType font has."""
    tables = struct.unpack_from(">H", font, 4)[0]
    places = {font[at : at + 4]: struct.unpack_from(">I", font, at + 8)[0] for at in range(12, 12 + 16 * tables, 16)}
    cmap = places[b"cmap"]
    for at in range(struct.unpack_from(">H", font, cmap + 2)[0]):
        place = cmap + struct.unpack_from(">HHI", font, cmap + 4 + 8 * at)[2]
        form = struct.unpack_from(">H", font, place)[0]
        if form == 12:
            groups = struct.unpack_from(">I", font, place + 12)[0]
            for group in range(groups):
                first, last, _ = struct.unpack_from(">III", font, place + 16 + 12 * group)
                yield first, last
        elif form == 4:
            count = struct.unpack_from(">H", font, place + 6)[0] // 2
            lasts = struct.unpack_from(f">{count}H", font, place + 14)
            firsts = struct.unpack_from(f">{count}H", font, place + 16 + 2 * count)
            yield from zip(firsts[:-1], lasts[:-1], strict=True)  # the last is the end's mark
