"""McNamara: scans code, packages and archives that may be hostile, inside a sandbox, and says what it could not see."""

from periphery.mcnamara.mad import McNamara

__all__ = ["McNamara"]
