"""Dewey: search over everything that was said and done, and the archive."""
