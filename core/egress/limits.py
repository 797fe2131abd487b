"""What one request may take and where it may go, beyond what anybody may."""

from dataclasses import dataclass

from core.egress.addresses import Network


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request and its answer. Whoever decides about it sets them; the broker keeps them."""

    networks: tuple[Network, ...] = ()  # special addresses that it may go to all the same: a rule names them
    bytes_up: int = 1 << 30  # of the body that is sent
    bytes_down: int = 1 << 30  # of the body that is received
    seconds: float = 600.0  # from the start to the end of the answer
    idle_s: float = 60.0  # without a byte from the server, or without it taking one
    head_s: float = 60.0  # from the end of what is sent to the end of the answer's head
    connect_s: float = 10.0  # for the name, the connection and TLS together


USUAL = Limits()
