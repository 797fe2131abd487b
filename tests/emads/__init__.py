"""eMADs that exist to be tested with."""
