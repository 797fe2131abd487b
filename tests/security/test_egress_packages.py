"""pip, npm and apt in a sandbox: what they find is old enough, is what the index listed, and is written down.

The installers are the real ones, behind the proxy of a sandbox, which asks the port; the indexes are ours, with TLS.
"""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache, partial
from pathlib import Path
from shutil import which

import pytest
from anyio import to_thread

from core.grace.door.shapes import packages_json
from core.ports.packages import installed
from core.ports.web import LocalWeb
from periphery.proxy import open_proxy
from protos.errors import Denied, Exhausted, Unavailable
from protos.ids import new_id
from protos.v1.web_pb2 import RequestHead
from tests.security.egress_world import World, a_world, fetch
from tests.servers.site import ok

OLD, YOUNG = (datetime.now(UTC) - timedelta(days=each) for each in (30, 2))
INSTALLER_S = 120


@cache
def wheel(name: str, version: str) -> bytes:
    """The least that pip installs."""
    content = io.BytesIO()
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return content.getvalue()


@cache
def tarball(name: str, version: str) -> bytes:
    """The least that npm installs."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        data = json.dumps({"name": name, "version": version}).encode()
        about = tarfile.TarInfo("package/package.json")
        about.size = len(data)
        file.addfile(about, io.BytesIO(data))
    return content.getvalue()


def listed(name: str, version: str, uploaded: datetime | None, content: bytes) -> dict[str, object]:
    """A file as the simple API lists it."""
    file: dict[str, object] = {
        "filename": f"{name}-{version}-py3-none-any.whl",
        "url": f"../../files/{name}-{version}-py3-none-any.whl",
        "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
    }
    return file | ({"upload-time": uploaded.isoformat()} if uploaded else {})


def simple(name: str, *files: dict[str, object]) -> bytes:
    """A listing."""
    about = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
    return ok(json.dumps(about).encode(), "Content-Type: application/vnd.pypi.simple.v1+json")


@pytest.fixture(scope="module")
async def world(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with a_world() as world:
        base = world.https("")
        egress = world.lab.services.egress
        assert egress is not None
        settings = egress.settings.packages.model_copy(
            update={"pip": (f"{base}/simple",), "npm": (f"{base}/npm",), "apt": (f"{base}/debian",)}
        )
        egress.packages = type(egress.packages)(settings)
        yield world


@pytest.fixture(autouse=True)
def _fresh(world: World) -> None:
    world.answers.clear()
    world.secure.asked.clear()


def offer(world: World) -> None:
    """A package with an old version, a young one, and one of unknown age."""
    files = []
    for version, uploaded in (("1.0", OLD), ("1.1", OLD), ("2.0", YOUNG), ("3.0", None)):
        content = wheel("thing", version)
        files.append(listed("thing", version, uploaded, content))
        world.answers[f"/files/thing-{version}-py3-none-any.whl"] = ok(content)
    world.answers["/simple/thing/"] = simple("thing", *files)


async def run(world: World, web: LocalWeb, place: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """A program as it would run in a sandbox: it knows the proxy and nothing else."""
    async with open_proxy(web) as proxy:
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), **proxy.environment()}
        call = partial(subprocess.run, command, env=environment, cwd=place, capture_output=True, text=True)
        return await to_thread.run_sync(partial(call, timeout=INSTALLER_S, check=False))


async def test_pip_finds_the_newest_version_that_is_old_enough(world: World, tmp_path: Path) -> None:
    offer(world)
    web = world.web("installer")
    pip = (sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir")
    ran = await run(world, web, tmp_path, *pip, "--target", "here", "--index-url", world.https("/simple"), "thing")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "here" / "thing.py").read_text() == "version = '1.1'\n"
    packages = await installed(world.lab.journal, web.identity.run)
    digest = hashlib.sha256(wheel("thing", "1.1")).hexdigest()
    assert [(each.ecosystem, each.project, each.version, each.digest) for each in packages] == [
        ("pip", "thing", "1.1", f"sha256:{digest}")
    ]
    assert abs(packages[0].uploaded - OLD.timestamp()) < 1


async def test_a_version_that_is_too_young_is_not_there(world: World, tmp_path: Path) -> None:
    offer(world)
    pip = (sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-cache-dir")
    index = world.https("/simple")
    ran = await run(world, world.web("installer"), tmp_path, *pip, "--index-url", index, "thing==2.0")
    assert ran.returncode != 0
    assert "1.0, 1.1" in ran.stderr
    assert not [each for each in world.secure.asked if "/files/" in each.line]


async def test_a_file_comes_from_the_index_once(world: World) -> None:
    content = wheel("once", "1.0")
    world.answers["/simple/once/"] = simple("once", listed("once", "1.0", OLD, content))
    world.answers["/files/once-1.0-py3-none-any.whl"] = ok(content)
    for _ in range(2):
        web = world.web("installer")
        await fetch(web, world.https("/simple/once/"))
        got = await fetch(web, world.https("/files/once-1.0-py3-none-any.whl"), headers=[("Range", b"bytes=0-5")])
        assert (got.status, got.body) == (200, content)
        assert [each.version for each in await installed(world.lab.journal, web.identity.run)] == ["1.0"]
    assert len([each for each in world.secure.asked if "/files/" in each.line]) == 1


async def test_a_file_is_paid_for_as_it_comes_and_not_twice(world: World) -> None:
    content = wheel("paid", "1.0")
    world.answers["/simple/paid/"] = simple("paid", listed("paid", "1.0", OLD, content))
    url = world.https("/files/paid-1.0-py3-none-any.whl")
    world.answers["/files/paid-1.0-py3-none-any.whl"] = ok(content)
    poor = world.web("installer")
    await fetch(poor, world.https("/simple/paid/"))
    before = await world.lab.services.horace.digests()
    poor.allowance.bytes_in = poor.allowance.used_in + len(content) - 1
    with pytest.raises(Exhausted):
        await fetch(poor, url)
    assert await world.lab.services.horace.digests() == before  # nothing of it is kept
    for _ in range(2):  # from the index, and from here
        web = world.web("installer")
        await fetch(web, world.https("/simple/paid/"))
        used = web.allowance.used_in
        await fetch(web, url)
        assert web.allowance.used_in - used == len(content)


async def test_only_listings_and_what_they_listed_are_reached(world: World) -> None:
    offer(world)
    web = world.web("installer")
    for path in (
        *("/files/thing-1.0-py3-none-any.whl?x=1", "/files/other-1.0-py3-none-any.whl", "/", "/simple/", "/admin"),
        *("/files/thing-2.0-py3-none-any.whl", "/simple/thing/?x=stolen", "/npm/-/v1/search", "/npm/a/b/c"),
    ):
        with pytest.raises(Denied, match=r"^rule packages"):
            await fetch(web, world.https(path))
    with pytest.raises(Denied, match=r"^rule packages"):
        await fetch(web, world.https("/simple/thing/"), "POST", body=b"secrets")
    await fetch(web, world.https("/simple/thing/"))
    with pytest.raises(Denied, match=r"^rule packages"):
        await fetch(web, world.https("/files/thing-2.0-py3-none-any.whl"))  # listed, and too young
    with pytest.raises(Denied, match=r"^rule packages"):
        await fetch(world.web("installer"), world.https("/files/thing-1.0-py3-none-any.whl"))  # shown to another run
    assert not [each for each in world.secure.asked if "/files/" in each.line or each.body]


async def test_a_file_that_is_not_what_was_listed_never_reaches_the_sandbox(world: World) -> None:
    world.answers["/simple/changed/"] = simple("changed", listed("changed", "1.0", OLD, wheel("changed", "1.0")))
    world.answers["/files/changed-1.0-py3-none-any.whl"] = ok(wheel("changed", "6.6"))
    web = world.web("installer")
    await fetch(web, world.https("/simple/changed/"))
    before = await world.lab.services.horace.digests()
    for _ in range(2):
        with pytest.raises(Unavailable, match="is not the file that the index has listed"):
            await fetch(web, world.https("/files/changed-1.0-py3-none-any.whl"))
    assert await world.lab.services.horace.digests() == before
    assert not await installed(world.lab.journal, web.identity.run)


async def test_an_index_that_tells_no_time_or_is_none_says_so(world: World) -> None:
    world.answers["/simple/html/"] = ok(b"<a href=x>x</a>", "Content-Type: text/html")
    with pytest.raises(Unavailable, match="no listing of html that tells when"):
        await fetch(world.web("installer"), world.https("/simple/html/"))
    world.answers["/simple/undated/"] = simple("undated", listed("undated", "1.0", None, b"x"))
    got = await fetch(world.web("installer"), world.https("/simple/undated/"))
    assert json.loads(got.body)["files"] == []
    world.answers["/simple/gone/"] = ok(b"not here", status="404 Not Found")
    assert (await fetch(world.web("installer"), world.https("/simple/gone/"))).status == 404


@pytest.mark.skipif(which("npm") is None, reason="npm is not installed")
async def test_npm_finds_the_newest_version_that_is_old_enough(world: World, tmp_path: Path) -> None:
    versions, times = {}, {}
    for version, uploaded in (("1.0.0", OLD), ("1.2.0", OLD), ("2.0.0", YOUNG), ("3.0.0", None)):
        content = tarball("thing", version)
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        path = f"/npm/thing/-/thing-{version}.tgz"
        world.answers[path] = ok(content)
        dist = {"tarball": world.https(path), "integrity": integrity}
        versions[version] = {"name": "thing", "version": version, "dist": dist}
        if uploaded:
            times[version] = uploaded.isoformat()
    about = {"name": "thing", "dist-tags": {"latest": "3.0.0"}, "versions": versions, "time": times}
    world.answers["/npm/thing"] = ok(json.dumps(about).encode(), "Content-Type: application/json")
    web = world.web("installer")
    npm = ("npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--registry", world.https("/npm/"))
    ran = await run(world, web, tmp_path, *npm, "thing")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "node_modules" / "thing" / "package.json").read_text())
    assert found["version"] == "1.2.0"
    packages = await installed(world.lab.journal, web.identity.run)
    digest = hashlib.sha256(tarball("thing", "1.2.0")).hexdigest()
    assert [(each.ecosystem, each.version) for each in packages] == [("npm", "1.2.0")], digest


@cache
def deb(name: str, version: str, built: datetime) -> bytes:
    """The least that dpkg takes for a package; the archive and its members say when it was built."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: us <us@example.test>\n"
    control += "Description: a thing\n"

    def tar(**files: bytes) -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as file:
            for each, data in files.items():
                about = tarfile.TarInfo(f"./{each}")
                about.size = len(data)
                file.addfile(about, io.BytesIO(data))
        return content.getvalue()

    members = {"debian-binary": b"2.0\n", "control.tar.gz": tar(control=control.encode())}
    members["data.tar.gz"] = tar(thing=version.encode())
    made = b"!<arch>\n"
    for each, data in members.items():
        made += f"{each:<16}{int(built.timestamp()):<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        made += data + b"\n" * (len(data) % 2)
    return made


def offer_debs(world: World, **uploaded: tuple[str, datetime, datetime | None]) -> None:
    """An archive with these packages: name → version, when it was built, when the archive says it got it."""
    listing = ""
    for name, (version, built, at) in uploaded.items():
        content = deb(name, version, built)
        path = f"pool/main/{name}/{name}_{version}_all.deb"
        listing += f"Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: {path}\nSize: {len(content)}\n"
        listing += f"SHA256: {hashlib.sha256(content).hexdigest()}\nMaintainer: us\nDescription: a thing\n\n"
        dated = [f"Last-Modified: {format_datetime(at, usegmt=True)}"] if at else []
        world.answers[f"/debian/{path}"] = ok(content, *dated)
    lists = {"main/binary-all/Packages": listing.encode(), "main/binary-amd64/Packages": b""}
    release = f"Suite: old\nCodename: old\nDate: {format_datetime(OLD, usegmt=True)}\nArchitectures: all amd64\n"
    release += "Components: main\nSHA256:\n"
    for path, content in lists.items():
        world.answers[f"/debian/dists/old/{path}"] = ok(content)
        release += f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}\n"
    world.answers["/debian/dists/old/Release"] = ok(release.encode())
    for path in ("InRelease", "Release.gpg"):
        world.answers[f"/debian/dists/old/{path}"] = ok(b"", status="404 Not Found")


@pytest.mark.skipif(which("apt-get") is None, reason="apt is Debian's")
async def test_apt_gets_what_is_old_enough_and_hears_of_the_rest_why_not(world: World, tmp_path: Path) -> None:
    offer_debs(
        world,
        thing=("1.0", OLD, OLD),
        newthing=("2.0", OLD, YOUNG),  # built long ago, it says, and only just put there
        rebuilt=("1.0", YOUNG, OLD),
        undated=("1.0", OLD, None),
    )
    for each in ("state/lists/partial", "cache/archives/partial", "etc", "log"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "status").write_text("")
    (tmp_path / "sources").write_text(f"deb [trusted=yes] {world.https('/debian')} old main\n")
    places = {"Dir::State": "state", "Dir::Cache": "cache", "Dir::Etc": "etc", "Dir::Log": "log"}
    places |= {"Dir::State::status": "status", "Dir::Etc::sourcelist": "sources", "Dir::Etc::sourceparts": "none"}
    options = [word for key, place in places.items() for word in ("-o", f"{key}={tmp_path / place}")]
    options += ["-o", "APT::Architecture=amd64", "-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none"]
    options += ["-o", "Acquire::Retries=0", "-q"]
    web = world.web("installer")
    ran = await run(world, web, tmp_path, "apt-get", *options, "update")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = await run(world, web, tmp_path, "apt-get", *options, "download", "thing")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "thing_1.0_all.deb").read_bytes() == deb("thing", "1.0", OLD)
    found = await installed(world.lab.journal, web.identity.run)
    assert [(each.ecosystem, each.project, each.version) for each in found] == [("apt", "thing", "1.0")]
    for name in ("newthing", "rebuilt", "undated"):
        ran = await run(world, web, tmp_path, "apt-get", *options, "download", name)
        assert ran.returncode != 0
        assert not list(tmp_path.glob(f"{name}_*"))
    assert len(await installed(world.lab.journal, web.identity.run)) == 1


async def test_what_an_archive_has_is_fetched_once_and_nothing_else_of_it(world: World) -> None:
    offer_debs(world, once=("1.0", OLD, OLD), newthing=("2.0", OLD, YOUNG))
    url = world.https("/debian/pool/main/once/once_1.0_all.deb")
    for _ in range(2):
        web = world.web("installer")
        assert (await fetch(web, url)).body == deb("once", "1.0", OLD)
        assert [each.version for each in await installed(world.lab.journal, web.identity.run)] == ["1.0"]
    assert len([each for each in world.secure.asked if "/pool/" in each.line]) == 1
    with pytest.raises(Denied, match=r"^rule packages: newthing_2.0_all.deb is 2\.\d days old; 7 days are wanted"):
        await fetch(web, world.https("/debian/pool/main/newthing/newthing_2.0_all.deb"))
    world.answers["/debian/pool/main/odd/odd_1.0_all.deb"] = ok(
        b"no package " * 20, f"Last-Modified: {format_datetime(OLD, usegmt=True)}"
    )
    before = await world.lab.services.horace.digests()
    with pytest.raises(Unavailable, match="no Debian package"):
        await fetch(web, world.https("/debian/pool/main/odd/odd_1.0_all.deb"))
    assert await world.lab.services.horace.digests() == before
    for path in ("/debian/dists/old/Release?x=1", "/debian/project/trace", "/debian/dists/../x", "/debian/pool/x.deb"):
        with pytest.raises(Denied, match=r"^rule packages"):
            await fetch(web, world.https(path))


async def test_what_a_run_has_installed_is_shown_with_it(world: World) -> None:
    content = wheel("shown", "1.0")
    world.answers["/simple/shown/"] = simple("shown", listed("shown", "1.0", OLD, content))
    world.answers["/files/shown-1.0-py3-none-any.whl"] = ok(content)
    web = world.web("installer")
    await fetch(web, world.https("/simple/shown/"))
    await fetch(web, world.https("/files/shown-1.0-py3-none-any.whl"))
    (found,) = await packages_json(world.lab, web.identity.run)
    assert found == {
        "ecosystem": "pip",
        "project": "shown",
        "version": "1.0",
        "name": "shown-1.0-py3-none-any.whl",
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "uploaded": pytest.approx(OLD.timestamp(), abs=1),
    }
    await world.lab.journal.rebuild("installed")
    assert await packages_json(world.lab, web.identity.run) == [found]


async def test_who_hangs_up_as_soon_as_it_has_a_package_has_it_on_its_list(world: World) -> None:
    content = wheel("hasty", "1.0")
    world.answers["/simple/hasty/"] = simple("hasty", listed("hasty", "1.0", OLD, content))
    world.answers["/files/hasty-1.0-py3-none-any.whl"] = ok(content)
    web = world.web("installer")
    await fetch(web, world.https("/simple/hasty/"))
    head = RequestHead(id=new_id(), method="GET", url=world.https("/files/hasty-1.0-py3-none-any.whl"))
    async with aclosing(web.fetch(head)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.bytes:
                break
        assert [each.project for each in await installed(world.lab.journal, web.identity.run)] == ["hasty"]
    assert [each.project for each in await installed(world.lab.journal, web.identity.run)] == ["hasty"]
