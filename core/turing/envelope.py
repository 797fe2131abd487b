"""Envelopes: AES-256-GCM, each sealed for one place and opened nowhere else.

What an envelope is for goes into its associated data: the vault, what it holds, and the names around it. So a sealed
value that somebody moved to another name, version or vault is not opened, as if it had been changed.
"""

import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class Unopened(Exception):
    """Another key, another place, or another content than was sealed: AES-GCM tells no difference."""


def new_key() -> bytes:
    """256 random bits."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, content: bytes, *place: str | int) -> bytes:
    """`content`, which only `key` opens, and only for the same `place`."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, _bound(place))


def unseal(key: bytes, sealed: bytes, *place: str | int) -> bytes:
    """
    Raises:
        Unopened: it was not sealed with this key, for this place, as it is now.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(place))
    except (InvalidTag, ValueError):
        raise Unopened from None


def _bound(place: tuple[str | int, ...]) -> bytes:
    return json.dumps(["madlab vault", 1, *place], ensure_ascii=True, separators=(",", ":")).encode()
