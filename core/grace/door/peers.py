"""Whose socket the other end of a loopback connection is, as the kernel says.

`SO_PEERCRED` is for unix sockets only. For TCP the kernel answers questions about one connection (sock_diag(7)), and
where it does not, it lists all of them (proc(5)), which takes milliseconds on a busy machine. An end that its owner has
closed already belongs to nobody: it has no inode, and waits for nothing that we could answer.
"""

import os
import socket
import struct
import sys
from pathlib import Path

TABLES = {4: Path("/proc/net/tcp"), 16: Path("/proc/net/tcp6")}  # by the bytes of an address
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST, ERROR = 4, 20, 1, 2  # linux/netlink.h, linux/sock_diag.h
ANY = 0xFFFFFFFF
ANSWER_BYTES = 16 + 72  # two headers: of the answer, and of what it says

Address = tuple[str, int]


def is_ours(peer: Address, here: Address) -> bool:
    """Whether the other end is a program of our own user, or of root, who could do as he likes anyway.

    Where the kernel tells nobody (it is no Linux) the token alone decides.
    """
    owner = _asked(peer, here)
    if owner is None and _asked(here, peer) is None:  # it does not even know our own end: it answers no such questions
        try:
            owner = _listed(peer, here)
        except FileNotFoundError:
            return True
    return owner in (os.getuid(), 0)


def _asked(one: Address, other: Address) -> int | None:
    """The user whose end of the connection `one` is; None where nobody's, or where the kernel does not say."""
    family, source, target = _family(one), _packed(one).ljust(16, b"\0"), _packed(other).ljust(16, b"\0")
    ends = struct.pack("!HH", one[1], other[1]) + source + target + struct.pack("=III", 0, ANY, ANY)
    question = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, ANY) + ends
    head = struct.pack("=IHHII", 16 + len(question), SOCK_DIAG_BY_FAMILY, REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, SOCK_DIAG) as kernel:
            kernel.setblocking(False)  # the answer is there when the question was taken
            kernel.send(head + question)
            answer = kernel.recv(8192)
    except (AttributeError, OSError):
        return None
    if len(answer) < ANSWER_BYTES or struct.unpack_from("=H", answer, 4)[0] == ERROR:
        return None
    user, inode = struct.unpack_from("=II", answer, ANSWER_BYTES - 8)
    return int(user) if inode else None


def _listed(one: Address, other: Address) -> int | None:
    """The same, from the list of all connections.

    Raises:
        FileNotFoundError: there is no such list.
    """
    ends = [_as_listed(one), _as_listed(other)]
    for line in TABLES[len(_packed(one))].read_text().splitlines()[1:]:
        words = line.split()
        if words[1:3] == ends:
            return int(words[7]) if int(words[9]) else None
    return None


def _family(end: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in end[0] else socket.AF_INET


def _packed(end: Address) -> bytes:
    return socket.inet_pton(_family(end), end[0])


def _as_listed(end: Address) -> str:
    """As the kernel writes it: words of four bytes in the machine's order, in hexadecimal."""
    packed = _packed(end)
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(each, sys.byteorder):08X}" for each in words) + f":{end[1]:04X}"
