"""Playfair: draws charts and diagrams, where a parser's bug can hurt nobody.

Its class is in `mad`; it is not imported here, so that a job starts with no more than it needs.
"""
