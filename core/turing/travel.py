"""A vault on its way elsewhere: one file, sealed with a passphrase of its own.

    madlab-vault 1\\n
    {"salt": …, "memory_kib": …, "iterations": …, "lanes": …}\\n      how the passphrase becomes the key
    nonce and AES-256-GCM of the JSON below, bound to both lines

    {"secrets": [{"name", "version", "created", "value" (base64)}, …]}

Only current values travel. Grants stay: they name principals and places of the lab they were made in.
"""

import base64
import json
from collections.abc import Sequence

from core.turing.envelope import Unopened, seal, unseal
from core.turing.locks import Lock, check_passphrase, derive, new_lock
from core.turing.vault import Carried
from protos.errors import Denied, InvalidArgument

MAGIC = b"madlab-vault 1\n"
PLACE = "export"


def packed(secrets: Sequence[Carried], passphrase: str) -> bytes:
    """The file. Takes as long as Argon2id: call it in a thread.

    Raises:
        InvalidArgument: the passphrase is too short.
    """
    check_passphrase(passphrase)
    lock = new_lock("passphrase")
    head = json.dumps(
        {"salt": lock.salt, "memory_kib": lock.memory_kib, "iterations": lock.iterations, "lanes": lock.lanes}
    )
    content = json.dumps(
        {
            "secrets": [
                {
                    "name": each.name,
                    "version": each.version,
                    "created": each.created,
                    "value": base64.b64encode(each.value).decode(),
                }
                for each in secrets
            ]
        }
    )
    return MAGIC + head.encode() + b"\n" + seal(derive(lock, passphrase), content.encode(), PLACE, head)


def unpacked(file: bytes, passphrase: str) -> list[Carried]:
    """What a file holds. Takes as long as Argon2id: call it in a thread.

    Raises:
        InvalidArgument: it is no such file.
        Denied: the passphrase does not open it, or it was changed.
    """
    head, _, sealed = file.removeprefix(MAGIC).partition(b"\n")
    try:
        if not file.startswith(MAGIC):
            raise ValueError
        lock = Lock("passphrase", "", **json.loads(head))
        key = derive(lock, passphrase)
    except (ValueError, TypeError):
        raise InvalidArgument("That is no exported vault.", next="Make one with: madlab secret export FILE") from None
    try:
        content = json.loads(unseal(key, sealed, PLACE, head.decode()))
    except Unopened:
        raise Denied(
            "The passphrase does not open the exported vault, or the file was changed; nothing was taken in.",
            next="Try the right passphrase, or another copy.",
        ) from None
    return [
        Carried(each["name"], each["version"], each["created"], base64.b64decode(each["value"]))
        for each in content["secrets"]
    ]
