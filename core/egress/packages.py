"""Package indexes: what a sandbox may install is what has been there for a while, and every file of it is known.

A listing passes through here on its way to the installer: pip's in the JSON form of the simple API (PEP 691, 700),
npm's packument. Files younger than the age gate are taken out, so the installer finds the newest version that is old
enough by itself, and nothing fails. What is left is remembered with its digest; a file that was in no listing is not
fetched.
The time is the index's own word ("upload-time", `time`). An index that tells none cannot be gated: its files are taken
out too, unless the operator says `undated = true`. Archives of Debian packages are another matter (`debian`).
"""

import base64
import binascii
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote, urljoin

from anyio import CapacityLimiter

from core.egress import debian
from core.egress.debian import Deb
from core.egress.settings import PackagesSettings
from core.egress.urls import canonical
from protos.errors import Denied, InvalidArgument, Unavailable

LISTING_BYTES = 32 << 20
LISTINGS_AT_ONCE = 2  # of the whole lab: one takes ten times its bytes while it is sifted
REMEMBERED = 50_000  # files of one owner, and digests of the lab
DAY_S = 86_400.0
ACCEPT = {"pip": b"application/vnd.pypi.simple.v1+json", "npm": b"application/json"}  # what tells the time
SDIST = re.compile(r"\.(tar\.gz|tgz|zip|tar\.bz2)$")

Ecosystem = Literal["pip", "npm"]


@dataclass(frozen=True, slots=True)
class Index:
    """Which listing an address asks for."""

    ecosystem: Ecosystem
    project: str
    url: str


@dataclass(frozen=True, slots=True)
class File:
    """A file that an index lists: what it is, and how to know it again."""

    ecosystem: Ecosystem
    project: str
    version: str
    name: str
    uploaded: float  # seconds since the epoch; 0: the index does not tell
    algorithm: Literal["sha256", "sha512", "sha1"]
    digest: str  # hexadecimal
    is_package: bool = True  # else what says something of one: its metadata


class Packages:
    """The indexes of a lab, and what they have listed."""

    def __init__(self, settings: PackagesSettings) -> None:
        self._settings = settings
        self._bases = [
            (ecosystem, str(canonical(base)).rstrip("/") + "/")
            for ecosystem, bases in (("pip", settings.pip), ("npm", settings.npm))
            for base in bases
        ]
        self._archives = [str(canonical(base)).rstrip("/") + "/" for base in settings.apt]
        self._debs: OrderedDict[str, tuple[str, float]] = OrderedDict()  # our digest and the time, by address
        self.turns = CapacityLimiter(LISTINGS_AT_ONCE)
        self._files: dict[str, OrderedDict[str, File]] = {}  # what each owner was shown, by address
        self._stored: OrderedDict[tuple[str, str], str] = OrderedDict()  # our digest, by the index's

    def index(self, url: str) -> Index | None:
        """What listing a canonical address asks for, if any."""
        for ecosystem, base in self._bases:
            path = url.removeprefix(base)
            if path == url or "?" in path:
                continue
            if ecosystem == "pip" and (found := re.fullmatch(r"([A-Za-z0-9._-]+)/?", path)):
                return Index("pip", found[1], url)
            if ecosystem == "npm" and (found := re.fullmatch(r"(@[\w.~-]+(?:/|%2F))?[\w.~-]+", path, re.ASCII)):
                return Index("npm", unquote(path), url)
        return None

    def file(self, owner: str, url: str, now: float) -> File | None:
        """A file that `owner` was shown in a listing and that is old enough, by its canonical address."""
        known = self._files[owner].get(url) if owner in self._files else None
        return known if known is not None and self._is_old(known.uploaded, now) else None

    def is_list(self, url: str) -> bool:
        """Whether a canonical address is a list of a configured archive."""
        return any(url.startswith(base) and debian.is_list(url.removeprefix(base)) for base in self._archives)

    def deb(self, url: str) -> Deb | None:
        """The package of a configured archive at a canonical address, if it is one."""
        found = (debian.package(url.removeprefix(base)) for base in self._archives if url.startswith(base))
        return next((each for each in found if each is not None), None)

    def check_age(self, deb: Deb, uploaded: float, now: float) -> None:
        """
        Raises:
            Denied: rule *packages*: it is too young, or nobody tells how old it is.
        """
        if not self._is_old(uploaded, now):
            old = f"is {max(0.0, now - uploaded) / DAY_S:.1f} days old" if uploaded else "is of unknown age"
            raise Denied(
                f"rule packages: {deb.name} {old}; {self._settings.min_age_days:g} days are wanted.",
                next="Ask for an older version, or name an archive as it was then (a snapshot) in [egress.packages].",
            )

    def learn(self, owner: str, files: Mapping[str, File]) -> None:
        """Remembers what `owner` was shown, by address."""
        shown = self._files.setdefault(owner, OrderedDict())
        for url, file in files.items():
            shown[url] = file
            shown.move_to_end(url)
        while len(shown) > REMEMBERED:
            shown.popitem(last=False)

    def forget(self, owner: str) -> None:
        """It has ended."""
        self._files.pop(owner, None)

    def keep(self, file: File, digest: str) -> None:
        """A file was stored under this digest."""
        self._stored[file.algorithm, file.digest] = digest
        while len(self._stored) > REMEMBERED:
            self._stored.popitem(last=False)

    def keep_deb(self, url: str, digest: str, uploaded: float) -> None:
        """The package at `url`, whose content never changes, was stored under this digest."""
        self._debs[url] = (digest, uploaded)
        while len(self._debs) > REMEMBERED:
            self._debs.popitem(last=False)

    def stored_deb(self, url: str) -> tuple[str, float]:
        """Under which digest a package was stored, and its time; nothing where it was not."""
        return self._debs.get(url, ("", 0.0))

    def stored(self, file: File) -> str:
        """The digest under which a file would be stored; empty where that is not known yet."""
        return (
            f"sha256:{file.digest}"
            if file.algorithm == "sha256"
            else self._stored.get((file.algorithm, file.digest), "")
        )

    def sifted(self, index: Index, listing: bytes, now: float) -> tuple[bytes, dict[str, File]]:
        """A listing without what is too young, and what it lists by address. Takes a while: not for the loop.

        Raises:
            Unavailable: it is no such listing.
        """
        try:
            whole = json.loads(listing)
            sift = self._sift_pip if index.ecosystem == "pip" else self._sift_npm
            files = sift(index, whole, now)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unavailable(
                f"The index has no listing of {index.project} that tells when its files were uploaded.",
                next="Configure an index with the JSON form of the simple API, or a registry of npm.",
            ) from None
        return json.dumps(whole, separators=(",", ":")).encode(), files

    def _sift_pip(self, index: Index, whole: Any, now: float) -> dict[str, File]:
        files: dict[str, File] = {}
        kept = []
        for each in whole["files"]:
            uploaded = _moment(each.get("upload-time"))
            digest = each.get("hashes", {}).get("sha256", "").lower()
            if not self._is_old(uploaded, now) or not re.fullmatch("[0-9a-f]{64}", digest):
                continue
            url = _address(index, each["url"])
            if url is None:
                continue
            name = str(each["filename"])
            about = File("pip", index.project, _version_of(name, index.project), name, uploaded, "sha256", digest)
            files[url] = about
            each["url"] = url
            for key in ("core-metadata", "dist-info-metadata", "data-dist-info-metadata"):
                metadata = each.pop(key, None)
                hash = metadata.get("sha256", "") if isinstance(metadata, Mapping) else ""
                if re.fullmatch("[0-9a-f]{64}", hash):
                    each["core-metadata"] = each["dist-info-metadata"] = {"sha256": hash}
                    files[f"{url}.metadata"] = File(
                        "pip", index.project, about.version, f"{name}.metadata", uploaded, "sha256", hash, False
                    )
            kept.append(each)
        whole["files"] = kept
        if "versions" in whole:
            left = {each.version for each in files.values()}
            whole["versions"] = [each for each in whole["versions"] if each in left]
        return files

    def _sift_npm(self, index: Index, whole: Any, now: float) -> dict[str, File]:
        files: dict[str, File] = {}
        times = whole.get("time", {})
        kept: dict[str, Any] = {}
        for version, each in whole["versions"].items():
            uploaded = _moment(times.get(version))
            url = _address(index, each["dist"]["tarball"])
            check = _integrity(each["dist"])
            if url is None or check is None or not self._is_old(uploaded, now):
                continue
            files[url] = File("npm", index.project, version, url.rpartition("/")[2], uploaded, *check)
            each["dist"]["tarball"] = url
            kept[version] = each
        whole["versions"] = kept
        whole["time"] = {version: times[version] for version in kept if version in times}
        tags = {tag: version for tag, version in whole.get("dist-tags", {}).items() if version in kept}
        if "latest" not in tags and kept:
            stable = [each for each in kept if "-" not in each] or list(kept)
            tags["latest"] = max(stable, key=lambda each: (_moment(times.get(each)), each))
        whole["dist-tags"] = tags
        return files

    def _is_old(self, uploaded: float, now: float) -> bool:
        """Whether a file has been there for long enough. One of unknown age has not, unless the operator says so."""
        if not uploaded:
            return self._settings.undated
        return uploaded <= now - self._settings.min_age_days * DAY_S


def _address(index: Index, url: object) -> str | None:
    """The address of a listed file in its one form; None where it has none."""
    try:
        return str(canonical(urljoin(index.url, str(url))))
    except InvalidArgument:
        return None


def _moment(text: object) -> float:
    """Seconds since the epoch; 0 where the index does not tell."""
    try:
        return max(datetime.fromisoformat(str(text)).timestamp(), 1.0)
    except (ValueError, OverflowError):
        return 0.0


def _integrity(dist: Mapping[str, Any]) -> tuple[Literal["sha512", "sha1"], str] | None:
    """The strongest digest that npm tells of a file."""
    for each in str(dist.get("integrity", "")).split():
        if each.startswith("sha512-"):
            try:
                return "sha512", base64.b64decode(each[7:], validate=True).hex()
            except binascii.Error:
                return None
    found = re.fullmatch("[0-9a-f]{40}", str(dist.get("shasum", "")))
    return ("sha1", found[0]) if found else None


def _version_of(name: str, project: str) -> str:
    """The version in the name of a wheel or a source distribution."""
    if name.endswith(".whl"):
        return name.split("-")[1] if name.count("-") >= 4 else ""
    stem = SDIST.sub("", name)
    return stem[len(project) + 1 :] if len(stem) > len(project) + 1 else stem
