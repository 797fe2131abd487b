"""Turing: secrets, kept sealed, used by handle, never shown."""
