"""Whose socket the other end of a loopback connection is, as the kernel says.

`SO_PEERCRED` is for unix sockets only; for TCP the kernel lists both ends with their owners. An end that its owner has
closed already belongs to nobody: it has no inode, and waits for nothing that we could answer.
"""

import os
import socket
import sys
from pathlib import Path

TABLES = {4: Path("/proc/net/tcp"), 16: Path("/proc/net/tcp6")}  # by the bytes of an address

Address = tuple[str, int]


def is_ours(peer: Address, here: Address) -> bool:
    """Whether the other end is a program of our own user, or of root, who could do as he likes anyway.

    Where the kernel has no such list (it is no Linux) the token alone decides.
    """
    packed = _packed(peer[0])
    table = TABLES[len(packed)]
    try:
        lines = table.read_text().splitlines()[1:]
    except FileNotFoundError:
        return True
    ends = [_as_listed(peer), _as_listed(here)]
    for line in lines:
        words = line.split()
        if words[1:3] == ends:
            return int(words[9]) != 0 and int(words[7]) in (os.getuid(), 0)
    return False


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _as_listed(end: Address) -> str:
    """As the kernel writes it: words of four bytes in the machine's order, in hexadecimal."""
    packed = _packed(end[0])
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(each, sys.byteorder):08X}" for each in words) + f":{end[1]:04X}"
