"""Durations."""


def shown(seconds):
    """Hours, minutes and seconds, for people."""
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes}:{seconds}"
