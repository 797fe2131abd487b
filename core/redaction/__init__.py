"""Redaction: what must not be written is struck out at the one place where things get written."""
