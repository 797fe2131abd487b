"""Marco: browses. Visits pages with a real browser, in a sandbox without a network, and says what stands there."""

from periphery.marco.mad import Marco

__all__ = ["Marco"]
