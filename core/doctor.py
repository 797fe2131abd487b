"""Examines this machine: whether the lab can run here, what is weak, and how to mend it.

Nothing is concluded from a version where it can be tried. What is found is one of four: `ok`; `weak`, when the lab
runs and is less safe, less durable or slower for it; `bad`, when it cannot run; `unseen`, when the lab does without it
and nobody has seen it work here, as a runtime whose image is not built. Nothing is changed or made, but one
small file in the home that is written, synced and removed to time the disk, and sandboxes that the probe opens.
"""

import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from anyio import to_thread

from core.config import Config, load
from core.home import Home
from core.manifest import load_manifest, profile_of
from core.ranking import Rank, needed, ranks, try_browser
from core.turing.locks import key_file_of
from protos.errors import Error
from sandbox.engine import SandboxError
from sandbox.engines.docker.engine import DockerEngine
from sandbox.engines.docker.images import Images
from sandbox.grades import is_enough
from sandbox.images import build_command
from sandbox.images.build import default_cache
from sandbox.images.unpacked import Images as Unpacked
from sandbox.profile import GRADES, Grade

CHECKOUT = Path(__file__).resolve().parents[1]
NO_LAB = "00000000"
TRY_IT = "no profile needs it; to have it tried, do what is said there and run madlab doctor again"
PYTHONS = ((3, 11), (3, 13))
FREE_BYTES = 5 * 1000**3
SYNCS = 15
SLOW_SYNC_S = 0.02
OPEN_FILES = 1024
MEMORY_BYTES = 2 * 1024**3
VOLATILE = {"tmpfs", "ramfs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"}


State = Literal["ok", "weak", "bad", "unseen"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    state: State
    detail: str
    mend: str = ""
    grade: Grade | None = None  # of a runtime


def can_run(findings: list[Finding]) -> bool:
    """Whether nothing stands in the lab's way."""
    return not any(each.state == "bad" for each in findings)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """The findings for a program."""
    return {"ok": can_run(findings), "checks": [asdict(each) for each in findings]}


async def examine(path: str | None) -> AsyncIterator[Finding]:
    """Looks at everything, the quick things first, and yields each finding as it is known."""
    for look in (_python, _packages, _kernel, _memory, _open_files, _clock):
        for finding in look():
            yield finding
    place = Home.locate(path)
    home: Home | None = None
    if place.exists():
        try:
            home = Home.find(path)
        except Error as error:
            yield Finding("home", "bad", error.message, error.next)
    for finding in await to_thread.run_sync(_disk, place):
        yield finding
    if home is not None:
        for finding in _permissions(home):
            yield finding
    config = None
    try:
        config = load(home or Home(place, NO_LAB, place))
        yield Finding("settings", "ok", f"{place / 'madlab.toml'} and MADLAB_* variables make sense")
    except Error as error:
        yield Finding("settings", "bad", error.message, error.next)
    if home is not None and config is not None and (home.path / "vault.db").exists():
        yield _vault(home, config)
    async for finding in _isolation(home.lab if home else NO_LAB, config):
        yield finding


def _python() -> Iterator[Finding]:
    found = sys.version_info[:2]
    good = PYTHONS[0] <= found <= PYTHONS[1]
    detail = f"Python {platform.python_version()} at {sys.executable}"
    yield Finding(
        "python", "ok" if good else "weak", detail, "" if good else "use Python 3.11 to 3.13, then ./deploy.sh"
    )


def _packages() -> Iterator[Finding]:
    """The installed packages against the lock."""
    lock = CHECKOUT / "requirements.txt"
    wanted = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)((?: ;.*)?) \\$", lock.read_text(), re.MULTILINE)
    wrong = []
    for name, pinned, marker in wanted:
        if "win32" in marker:
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "nothing"
        if found != pinned:
            wrong.append(f"{name} {pinned} is locked, {found} is installed")
    if wrong:
        yield Finding("packages", "weak", "; ".join(wrong), "run ./deploy.sh to install what is locked")
    else:
        yield Finding("packages", "ok", f"all {len(wanted)} as locked")


def _kernel() -> Iterator[Finding]:
    text = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if platform.system() != "Linux":
        yield Finding("kernel", "bad", text, "run the lab on Linux: sandboxes are Linux containers")
        return
    modules = Path("/sys/kernel/security/lsm")
    with suppress(OSError):
        text += f", security modules: {modules.read_text().strip()}"
    yield Finding("kernel", "ok", text)


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{total / 1e9:.1f} GB, {os.cpu_count()} processors"
    if total < MEMORY_BYTES:
        yield Finding("memory", "weak", detail, "give the machine 2 GB or more, or lower sandbox.memory_mb")
    else:
        yield Finding("memory", "ok", detail)


def _open_files() -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        yield Finding("open files", "weak", f"{soft} at once", f"run: ulimit -n {OPEN_FILES} (the limit is {hard})")
    else:
        yield Finding("open files", "ok", f"{soft:,} at once")


def _clock() -> Iterator[Finding]:
    """Deadlines run by the monotonic clock, records carry the wall's: the two must not drift apart or jump."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.2)
    drift = (time.time() - wall) - (time.monotonic() - steady)
    youngest = max(each.stat().st_mtime for each in (CHECKOUT / "core").glob("*.py"))
    if wall < youngest - 86400:
        detail = f"it says {time.strftime('%Y-%m-%d', time.gmtime(wall))}, and this code is younger"
        yield Finding("clock", "weak", detail, "set the clock, and let NTP keep it")
    elif abs(drift) > 0.05:
        yield Finding(
            "clock", "weak", f"it jumped by {drift:.2f} s while it was watched", "let NTP slew it, not step it"
        )
    else:
        yield Finding("clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(wall))} UTC, steady")


def _disk(place: Path) -> list[Finding]:
    """Room, kind and speed of the file system that the home is on."""
    there = place
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    kind = _file_system(there)
    room = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB at {there} ({kind})"
    found = [
        Finding("disk", "ok", room)
        if usage.free > FREE_BYTES
        else Finding("disk", "weak", room, "make room, lower files.quota_gb, or move the lab: --home DIR")
    ]
    if kind in VOLATILE:
        found.append(Finding("durability", "weak", f"{kind} forgets all at a restart", "move the lab: --home DIR"))
    elif kind in REMOTE:
        found.append(Finding("durability", "weak", f"{kind}: SQLite is not safe on it", "use a local disk: --home DIR"))
    try:
        taken = _sync_times(there)
    except OSError as error:
        found.append(
            Finding("sync", "bad", f"{there} cannot be written: {error.strerror}", "choose another: --home DIR")
        )
        return found
    median, worst = statistics.median(taken), max(taken)
    detail = f"append and fdatasync in {median * 1e3:.2f} ms, at worst {worst * 1e3:.1f} ms"
    if median > SLOW_SYNC_S:
        found.append(Finding("sync", "weak", detail, "each message waits for it: use a faster disk"))
    elif median < 2e-5 and kind not in VOLATILE:
        found.append(Finding("sync", "weak", f"{detail}: too fast to be true", "see whether the disk ignores flushes"))
    else:
        found.append(Finding("sync", "ok", detail))
    return found


def _sync_times(directory: Path) -> list[float]:
    taken = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return taken


def _file_system(place: Path) -> str:
    """The type of the file system at `place`, from the longest mount point above it."""
    best, kind = "", "unknown"
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, mount, found, *_ = line.split(" ")
            if Path(mount) in (place, *place.parents) and len(mount) >= len(best):
                best, kind = mount, found
    return kind


def _permissions(home: Home) -> Iterator[Finding]:
    places = [(home.path, 0o700), (home.runtime, 0o700), (home.api_socket, 0o600)]
    places += [(home.path / name, 0o600) for name in ("journal.db", "core.log") if (home.path / name).exists()]
    for place, wanted in places:
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        mode = found.st_mode & 0o777
        if found.st_uid != os.getuid():
            yield Finding("permissions", "bad", f"{place} belongs to user {found.st_uid}", "run madlab as that user")
        elif mode & ~wanted and place.parent != home.path:  # within the home nobody else gets anyway
            yield Finding("permissions", "weak", f"{place} has mode {mode:o}", f"run: chmod {wanted:o} {place}")
    yield Finding("permissions", "ok", f"{home.path} and {home.runtime} are this user's alone")


def _vault(home: Home, config: Config) -> Finding:
    """What a copy of the home, or of the swap, would give away."""
    try:
        key = key_file_of(config.vault, home.path, home.lab) if config.vault.unlock == "key_file" else None
    except Error as error:
        return Finding("vault", "weak", error.message, error.next)
    if key is not None and key.is_relative_to(home.path):
        detail = f"the vault's key lies in the lab's home ({key}): a copy of the home is a copy of every secret"
        return Finding("vault", "weak", detail, "move the file elsewhere and name it in madlab.toml: [vault] key_file")
    swaps = [line.split()[0] for line in _lines("/proc/swaps")[1:]]
    open_swaps = [each for each in swaps if not each.startswith(("/dev/zram", "/dev/dm-"))]
    if open_swaps:
        detail = f"the core's memory may be written to {', '.join(open_swaps)}, where secrets would stay"
        return Finding("vault", "weak", detail, "encrypt the swap, or: swapoff -a")
    how = {"key_file": f"the key file {key}", "passphrase": "a passphrase", "system": "the system's store"}
    return Finding("vault", "ok", f"locked by {how[config.vault.unlock]}; nothing of it goes to a swap in clear")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


async def _isolation(lab: str, config: Config | None) -> AsyncIterator[Finding]:
    """The engines that profiles need, what their kernel enforces, the images, and each runtime by trying it."""
    needs = needed(config)
    names = sorted({"base", *_images(config)})
    if set(needs) & {"runc", "runsc"}:
        async for finding in _docker(lab, names):
            yield finding
    if "bwrap" in needs:
        built = Unpacked(lab, default_cache()).names()
        yield _built([each for each in names if each not in built], names, lab, "bubblewrap")
    found = []
    async for rank in ranks(lab):
        found.append(rank)
        yield _runtime(rank, needs)
    yield _ranking(found, needs)
    async for finding in _browsers(lab, config, [each.runtime for each in found if each.offered]):
        yield finding


async def _browsers(lab: str, config: Config | None, offered: list[str]) -> AsyncIterator[Finding]:
    """Whether a browser has its own sandbox within that of who browses; where not, under which runtime it has."""
    for folder in config.emads if config else ():
        with suppress(Error):  # a manifest that cannot be read is another finding's
            manifest = load_manifest(folder)
            profile = profile_of(manifest, config.overrides(manifest.name) if config else {})
            if profile.calls != "browser" or profile.runtime not in offered:
                continue
            check, works = await try_browser(lab, profile.runtime), ""
            for each in offered if not check.ok else ():
                if each != profile.runtime and (await try_browser(lab, each)).ok:
                    works = f'[profile.{manifest.name}] runtime = "{each}": there it works'
                    break
            state: State = "ok" if check.ok else "weak"  # the rest of the lab does without
            yield Finding(f"browser {profile.runtime}", state, check.detail, "" if check.ok else works or check.mend)


async def _docker(lab: str, names: list[str]) -> AsyncIterator[Finding]:
    engine = DockerEngine(lab)
    try:
        info = await engine.call(lambda api: api.info())
    except SandboxError as error:
        mend = "run ./deploy.sh, which installs or starts one where it may; without Docker: set sandbox.runtime"
        yield Finding("engine", "bad", str(error), f'{mend} = "bwrap"')
        return
    finally:
        await engine.aclose()
    yield Finding("engine", "ok", f"Docker {info['ServerVersion']}, storage {info['Driver']}")
    for finding in _limits(info):
        yield finding
    built = {each.tag.partition("/")[2].partition(":")[0] for each in await to_thread.run_sync(_list_images, lab)}
    yield _built([each for each in names if each not in built], names, lab)


def _built(missing: list[str], names: list[str], lab: str, engine: str = "docker") -> Finding:
    if missing:
        command = build_command(lab, missing, engine)
        return Finding("images", "bad", f"not built: {', '.join(missing)}", f"run ./deploy.sh, or: {command}")
    return Finding("images", "ok", f"built: {', '.join(names)}")


def _runtime(rank: Rank, needs: dict[str, Grade]) -> Finding:
    """A runtime that a profile needs must stop what it wants; of another it is told what it would."""
    name, least = f"runtime {rank.runtime}", needs.get(rank.runtime)
    detail = f"{rank.grade}: {rank.detail}" if rank.offered else rank.detail
    if least is not None and not is_enough(rank.grade, least):
        mend = rank.mend or f"choose another runtime, or accept it: [sandbox] least = {rank.grade!r}"
        return Finding(name, "bad", detail, mend, rank.grade)
    if rank.runtime == "runsc" and "runc" in needs and not is_enough(rank.grade, "container"):
        return Finding(name, "weak", detail, rank.mend, rank.grade)  # one that stops more could be had
    if rank.runtime == "process" and least is None:
        return Finding(name, "unseen", rank.detail, "", rank.grade)
    if least is None and not (rank.offered and rank.tried):
        words = "it did not start when it was tried" if rank.tried else "not tried here"
        return Finding(name, "unseen", f"{words}: {rank.detail}", rank.mend or TRY_IT, rank.grade)
    return Finding(name, "ok", detail, "", rank.grade)


def _ranking(found: list[Rank], needs: dict[str, Grade]) -> Finding:
    """The runtimes in order, the one that stops most first."""
    order = sorted((each for each in found if each.offered), key=lambda each: -GRADES.index(each.grade))
    words = ", ".join(f"{each.runtime} ({each.grade})" for each in order)
    used = ", ".join(f"{runtime} for at least {least!r}" for runtime, least in sorted(needs.items()))
    return Finding("ranking", "ok", f"{words}; profiles use {used}")


def _limits(info: dict[str, Any]) -> Iterator[Finding]:
    """Whether the kernel enforces what every sandbox is promised."""
    flags = {"memory": "MemoryLimit", "processes": "PidsLimit", "processor": "CpuCfsQuota", "swap": "SwapLimit"}
    lacking = [name for name, flag in flags.items() if not info.get(flag)]
    group = f"cgroup v{info.get('CgroupVersion', '1')} by {info.get('CgroupDriver')}"
    if lacking:
        mend = "use an engine with root, and boot with cgroup_enable=memory swapaccount=1"
        yield Finding("limits", "bad", f"{group} does not limit: {', '.join(lacking)}", mend)
    else:
        yield Finding("limits", "ok", f"{group} limits memory, swap, processes and processor")
    options = [str(each) for each in info.get("SecurityOptions") or ()]
    if any("seccomp" in each for each in options):
        yield Finding("seccomp", "ok", "the engine filters system calls")
    else:
        yield Finding("seccomp", "bad", "the engine filters no system calls", "use a kernel and engine with seccomp")
    if not any("apparmor" in each or "selinux" in each for each in options):
        detail = "neither AppArmor nor SELinux stands behind the other walls"
        yield Finding("mandatory access", "weak", detail, "boot a kernel with one of them, if you can choose")


def _images(config: Config | None) -> list[str]:
    found = []
    for folder in config.emads if config else ():
        with suppress(Error):
            found.append(load_manifest(folder).image)
    return found


def _list_images(lab: str) -> list[Any]:
    return list(Images(lab).list())
