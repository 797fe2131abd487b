"""Debian packages without installing them: fetched by apt, which checks the signatures, and unpacked, never configured.

The machine's own apt says where its mirror is; nothing else of it is read or changed. Package lists, cache and the
(empty) list of installed packages are private, so that this works for any user, and so that the image's Debian is
trixie whatever the machine's is.
"""

import hashlib
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN = re.compile(r"/debian/?$")
_SECURITY = re.compile(r"/debian-security/?$")


class NoDebian(Exception):
    """This machine's apt does not lead to a Debian mirror."""


@dataclass(frozen=True, order=True)
class Package:
    """One line of `debian.lock`."""

    name: str
    version: str
    architecture: str  # of the machine the image is for, also where the package is for all
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture} {self.sha256}"


def read_lock(path: Path) -> list[Package]:
    """The packages of a lock; none where there is no such file."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#"))
    return [Package(*line) for line in lines]


def _mirrors() -> tuple[str, str]:
    """The machine's Debian mirror and its security mirror.

    Raises:
        NoDebian: there is none.
    """
    uris: list[str] = []
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]:
        if file.exists():
            lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
            uris += re.findall(r"\S+://\S+", "\n".join(lines))
    if not KEYRING.exists():
        raise NoDebian(f"Debian's keys are not on this machine ({KEYRING})")
    debian = next((uri for uri in uris if _DEBIAN.search(uri)), None)
    if debian is None:
        raise NoDebian("this machine's apt names no Debian mirror")
    security = next((uri for uri in uris if _SECURITY.search(uri)), re.sub(_DEBIAN, "/debian-security", debian))
    return debian, security


class Apt:
    """A private apt for one architecture, in a directory of its own."""

    def __init__(self, directory: Path, architecture: str) -> None:
        self._directory = directory / architecture
        self._architecture = architecture

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        environment = {"APT_CONFIG": str(self._directory / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        try:
            done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
        except FileNotFoundError:
            raise NoDebian("this machine has no apt") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise NoDebian(f"`{' '.join(command)}` failed: {said[-1] if said else 'without a word'}")
        return done.stdout

    def update(self) -> None:
        """Fetches the package lists.

        Raises:
            NoDebian: no mirror, or it does not answer.
        """
        debian, security = _mirrors()
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
        (self._directory / "status").touch()
        signed = f"deb [arch={self._architecture} signed-by={KEYRING}]"
        (self._directory / "sources.list").write_text(
            f"{signed} {debian} {SUITE} main\n{signed} {security} {SUITE}-security main\n"
        )
        settings = {
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Sandbox::User": "root",  # the directory is the caller's own; apt's user could not write to it
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::Cache": str(self._directory / "cache"),
            "Dir::Etc::SourceList": str(self._directory / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": str(self._directory / "lists"),
            "Dir::State::status": str(self._directory / "status"),
        }
        (self._directory / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
        self._run("apt-get", "-q", "update")

    def resolve(self, names: Iterable[str]) -> list[Package]:
        """What the mirror has of `names` now.

        Raises:
            NoDebian: it lacks one.
        """
        found = []
        for line in self._run("apt-get", "download", "--print-uris", *names).splitlines():
            file, digest = re.fullmatch(r"'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})", line.strip()).groups()  # type: ignore[union-attr]
            name, version, _ = file.split("_")
            found.append(Package(name, version.replace("%3a", ":"), self._architecture, digest))
        return sorted(found)

    def needed(self, names: Iterable[str]) -> list[str]:
        """`names` and what Debian says they need, all the way down: a proposal, for a person to take from.

        Raises:
            NoDebian: the mirror lacks one.
        """
        said = self._run("apt-get", "install", "--simulate", "--yes", "--no-install-recommends", *names)
        return sorted(re.findall(r"^Inst (\S+)", said, re.MULTILINE))

    def versions(self, names: Iterable[str]) -> dict[str, set[str]]:
        """Every version of each that the mirror still has."""
        found: dict[str, set[str]] = {name: set() for name in names}
        for line in self._run("apt-cache", "madison", *found).splitlines():
            name, version, _ = (part.strip() for part in line.split("|", 2))
            found[name].add(version)
        return found

    def fetch(self, packages: Sequence[Package], to: Path) -> None:
        """Downloads `packages` into `to`, each named by its digest.

        Raises:
            NoDebian: the mirror does not have that version any more, or it does not answer.
        """
        to.mkdir(parents=True, exist_ok=True)
        if not packages:
            return
        self._run("apt-get", "-q", "download", *(f"{p.name}={p.version}" for p in packages), cwd=to)
        for p in packages:
            [file] = to.glob(f"{p.name}_{p.version.replace(':', '%3a')}_*.deb")
            if hashlib.sha256(file.read_bytes()).hexdigest() != p.sha256:
                raise NoDebian(f"{p.name} {p.version} is not the package that debian.lock means: its digest differs")
            file.rename(to / f"{p.sha256}.deb")


def unpack(packages: Iterable[Package], cache: Path, root: Path) -> None:
    """Unpacks the cached `packages` into `root`: files only, no maintainer script runs."""
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(cache / f"{package.sha256}.deb"), str(root)], check=True)
