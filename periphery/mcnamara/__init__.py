"""McNamara: scans code, packages and archives that may be hostile, inside a sandbox, and says what it could not see."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periphery.mcnamara.mad import McNamara

__all__ = ["McNamara"]


def __getattr__(name: str) -> object:
    # Imported when asked for: the processes that inspect files import this package, and need neither gRPC nor anyio.
    if name == "McNamara":
        from periphery.mcnamara.mad import McNamara

        return McNamara
    raise AttributeError(name)
