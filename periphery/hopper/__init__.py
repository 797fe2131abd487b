"""Hopper: takes a goal and a repository, works in its sandbox, hands back what changed."""
