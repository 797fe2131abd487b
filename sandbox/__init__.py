"""Runs a program in isolation. Knows nothing of what the program says."""
