"""Compares versions as each package index does, and tells whether an advisory's ranges hold one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from packaging.version import InvalidVersion, Version

Key = tuple[Any, ...]
SEMVER = re.compile(r"v?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]{1,200}))?(?:\+.{0,200})?$")
RANGED = {"PyPI", "npm", "Go", "crates.io"}  # elsewhere an advisory's list of versions is what counts


def normal_name(ecosystem: str, name: str) -> str:
    """A package's name as its index compares it."""
    if ecosystem == "PyPI":
        return re.sub(r"[-_.]+", "-", name).lower()
    return name.lower() if ecosystem in ("Packagist", "NuGet") else name


def key(ecosystem: str, version: str) -> Key | None:
    """Something that sorts like the version; None for what is no version there."""
    if ecosystem == "PyPI":
        try:
            return (Version(version),)
        except InvalidVersion:
            return None
    match = SEMVER.match(version)
    if match is None:
        return None
    major, minor, patch, prerelease = match.groups()
    parts = tuple(_identifier(each) for each in prerelease.split(".")) if prerelease else ()
    return int(major), int(minor or 0), int(patch or 0), not prerelease, parts  # a release follows its prereleases


def _identifier(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdigit() and len(text) < 19 else (1, 0, text)


def affected(ecosystem: str, version: str, ranges: Sequence[Mapping[str, Any]], listed: Iterable[str]) -> str | None:
    """What fixes it (empty: nothing known) if `version` is affected, else None.

    `ranges` are OSV's: events in the order of their versions, `introduced`, `fixed` or `last_affected`.
    """
    plain = version.removeprefix("v")
    within = any(each == version or each.removeprefix("v") == plain for each in listed)
    here = key(ecosystem, version) if ecosystem in RANGED else None
    fixes: list[tuple[Key, str]] = []
    for each in ranges:
        holds = False
        events = _in_order(ecosystem, each.get("events", ())) if here is not None else []
        for at, event, text in events:
            if here is None:
                continue
            if event == "introduced" and at <= here:
                holds = True
            elif event == "fixed":
                if at <= here:
                    holds = False
                else:
                    fixes.append((at, text))
            elif event == "last_affected" and at < here:
                holds = False
        within = within or holds
    if not within:
        return None
    return min(fixes)[1] if fixes else next((each["fixed"] for each in _events(ranges) if "fixed" in each), "")


def _in_order(ecosystem: str, events: Iterable[Mapping[str, str]]) -> list[tuple[Key, str, str]]:
    found = []
    for event in events:
        for name, text in event.items():
            at = () if text == "0" else key(ecosystem, text)  # "0" comes before every version, prereleases too
            if name in ("introduced", "fixed", "last_affected") and at is not None:
                found.append((at, name, text))
    # At the same version what ends a range comes before what begins the next.
    return sorted(found, key=lambda each: (each[0], each[1] == "introduced"))


def _events(ranges: Sequence[Mapping[str, Any]]) -> list[Mapping[str, str]]:
    return [event for each in ranges for event in each.get("events", ())]
