"""How large a test may be: small by default, whole with MADLAB_FULL=1."""

import os


def full() -> bool:
    """Whether tests run at the size that the requirements name."""
    return os.environ.get("MADLAB_FULL") == "1"
