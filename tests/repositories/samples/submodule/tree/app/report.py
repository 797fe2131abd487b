"""Reports for people who think in miles."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vendor" / "units"))

import units  # noqa: E402, F401


def report(kilometres):
    """A distance, for people."""
    return f"{kilometres:.1f} miles"
