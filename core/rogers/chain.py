"""The hash chain: each entry's hash covers the one before it, its header, and the digest of its body.

The digest stands for the body, so a body can go and the chain still be checked. The form is fixed: whoever changes
it here must write a migration that says where the old form ends.
"""

from hashlib import sha256
from struct import Struct

GENESIS = bytes(32)  # what the first entry stands on

_numbers = Struct(">QdQ").pack


def header(kind: str, id: str, conversation: str, sender: str, recipient: str) -> bytes:
    """The header's words, each behind its length, so that no two headers read alike.

    Raises:
        UnicodeEncodeError: a word is not Unicode text (a lone surrogate).
    """
    return (
        f"{len(kind)}:{kind}{len(id)}:{id}{len(conversation)}:{conversation}"
        f"{len(sender)}:{sender}{len(recipient)}:{recipient}"
    ).encode()


def link(previous: bytes, sequence: int, at: float, size: int, digest: bytes, header: bytes) -> bytes:
    """The hash of one entry; `previous` is the hash of the entry before it."""
    return sha256(b"".join((previous, _numbers(sequence, at, size), digest, header))).digest()
