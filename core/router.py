"""Who a message is for: a pure function of its recipient and the registry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """A MAD of the core: it listens already."""

    name: str


@dataclass(frozen=True)
class Ephemeral:
    """An eMAD: somebody must be started who listens."""

    name: str


@dataclass(frozen=True)
class Nobody:
    """No MAD has that name."""


Destination = Resident | Ephemeral | Nobody
