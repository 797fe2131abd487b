"""What a MAD's tool is called for MCP clients.

`MAD_TOOL`, as in `mcnamara_scan`: a MAD's name has no underscore, so no two tools get one name. Clients take at most 64
letters, digits, `_` and `-`; of a longer name the end gives way to eight digits of the whole one's digest. Names that
begin with `lab_` are the gateway's own.
"""

from hashlib import sha256

LONGEST = 64
DIGITS = 8
OWN = "lab_"


def name_of(mad: str, tool: str) -> str:
    """The name of a MAD's tool: always the same, and no other tool's."""
    whole = f"{mad}_{tool}"
    if len(whole) <= LONGEST and not whole.startswith(OWN):
        return whole
    digest = sha256(whole.encode()).hexdigest()[:DIGITS]
    return f"{whole[: LONGEST - DIGITS - 1]}-{digest}" if not whole.startswith(OWN) else f"mad-{whole[:50]}-{digest}"


def title_of(mad: str, tool: str) -> str:
    """The same for people."""
    return f"{mad}: {tool.replace('_', ' ')}"
