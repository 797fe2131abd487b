"""A name server that may change its mind: real DNS over UDP, and what it said once it need not say again."""

import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from threading import Thread

A, CNAME, AAAA = 1, 5, 28
Answers = Callable[[str, int], Sequence[tuple[int, str]] | None]  # name and type → records; None: no answer at all


class NameServer:
    """Answers at `address`, port 53, until the process ends. `asked` are the names of the A questions that came."""

    def __init__(self, address: str, answers: Answers) -> None:
        self.asked: list[str] = []
        self._answers = answers
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(512)
            name, end = _name(question, 12)
            kind = struct.unpack(">H", question[end : end + 2])[0]
            if kind == A:
                self.asked.append(name)
            records = self._answers(name, kind)
            if records is not None:
                answer = question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0) + question[12 : end + 4]
                owner = b"\xc0\x0c"
                for each, value in records:
                    data = _labels(value) if each == CNAME else ip_address(value).packed
                    answer += owner + struct.pack(">HHIH", each, 1, 0, len(data)) + data  # it may be kept for 0 seconds
                    owner = data if each == CNAME else owner
                self._socket.sendto(answer, peer)


def kind_of(address: str) -> int:
    """The type of the record that holds it."""
    return AAAA if isinstance(ip_address(address), IPv6Address) else A


def _name(packet: bytes, at: int) -> tuple[str, int]:
    labels = []
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _labels(name: str) -> bytes:
    return b"".join(bytes((len(each),)) + each.encode() for each in name.split(".")) + b"\0"
