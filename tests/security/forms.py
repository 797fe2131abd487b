"""A secret in the ways in which it could be written down."""

import html
import json
from base64 import b32encode, b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus


def forms(secret: str) -> dict[str, bytes]:
    """What to look for: each form of a secret, by its name."""
    plain = secret.encode()
    found = {
        "plain": plain,
        "reversed": plain[::-1],
        "UTF-16": secret.encode("utf-16-le"),
        "hexadecimal": plain.hex().encode(),
        "hexadecimal, upper case": plain.hex().upper().encode(),
        "hexadecimal, with colons": plain.hex(":").encode(),
        "URL-encoded": "".join(f"%{each:02x}" for each in plain).encode(),
        "URL-encoded, upper case": "".join(f"%{each:02X}" for each in plain).encode(),
        "base32": b32encode(plain).rstrip(b"=")[:-2],
        "JSON": json.dumps(secret)[1:-1].encode(),
        "JSON, not only ASCII": json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        "JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
        "URL-encoded where needed": quote(secret, safe="").encode(),
        "URL-encoded but slashes": quote(secret).encode(),
        "as a form": quote_plus(secret).encode(),
        "HTML": html.escape(secret).encode(),
    }
    for offset in range(3):  # what stands before it shifts base64 by so many bytes
        for name, encode in (("base64", b64encode), ("URL-safe base64", urlsafe_b64encode)):
            for order, value in (("", plain), (", reversed", plain[::-1])):
                text = encode(b"\0" * offset + value).rstrip(b"=")
                found[f"{name} at {offset}{order}"] = text[-(-offset * 8 // 6) : -2]
    return found


def seen(secret: str, content: bytes) -> list[str]:
    """The forms in which a secret stands in some bytes."""
    return [name for name, form in forms(secret).items() if form in content]
