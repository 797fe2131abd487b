"""Agents that are not ours, run in the same sandbox through the doors: one module each, with `make() -> Agent`."""
