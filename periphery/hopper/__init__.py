"""Hopper: takes a goal and a repository, works in its sandbox, hands back what changed."""

from periphery.hopper.mad import Hopper

__all__ = ["Hopper"]
