"""What makes an image, without an engine: what image.toml may say, what stays in a tree, where a wheel's files go."""

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from docker.errors import ImageNotFound

from sandbox.engine import SandboxError
from sandbox.engines.docker.client import speaking_plainly
from sandbox.images import npm, pulled, tree, wheels
from sandbox.images.debian import Package, read_lock
from sandbox.images.spec import Refused, architecture, key, only, read
from sandbox.images.unpacked import Images


def image(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "image.toml").write_text(text)
    return folder


def test_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'colour'"):
        read(str(image(tmp_path / "box", 'colour = "red"')))


def test_an_image_that_is_not_there_says_which_are() -> None:
    with pytest.raises(Refused, match="base"):
        read("nowhere")


def test_a_folder_with_a_strange_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no image name"):
        read(str(image(tmp_path / "My Box", "")))


def test_a_package_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no folder"):
        read(str(image(tmp_path / "box", 'from = "base"\npackages = ["nowhere"]'))).sources()


def test_a_debian_package_without_a_locked_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="lock box"):
        read(str(image(tmp_path / "box", 'from = "base"\ndebian = ["git"]'))).locked()


def test_a_child_has_its_parents_environment_and_its_own(tmp_path: Path) -> None:
    spec = read(str(image(tmp_path / "box", 'from = "base"\n[env]\nMOOD = "fine"')))
    assert spec.environment()["MOOD"] == "fine"
    assert spec.environment()["PYTHONSAFEPATH"] == "1"


def test_the_key_changes_with_code_and_with_nothing_else(tmp_path: Path) -> None:
    folder = image(tmp_path / "box", 'from = "base"\npackages = ["./greeting"]')
    (folder / "greeting").mkdir()
    source = folder / "greeting/__init__.py"
    source.write_text("WORD = 1\n")
    first = key(read(str(folder)))
    os.utime(source, (1, 1))
    (folder / "greeting/README.md").write_text("words about it")
    assert key(read(str(folder))) == first
    source.write_text("WORD = 2\n")
    assert key(read(str(folder))) != first


@pytest.mark.parametrize(
    ("glob", "path", "meant"),
    [
        ("usr/share/**", "usr/share/doc/x", True),
        ("usr/share/**", "usr/share", True),
        ("usr/share/**", "usr/shared", False),
        ("**/*.pyx", "a/b/c.pyx", True),
        ("**/*.pyx", "c.pyx", True),
        ("usr/*/x", "usr/a/b/x", False),
        ("usr/bin/[!p]*", "usr/bin/python3", False),
        ("usr/bin/[!p]*", "usr/bin/sh", True),
        ("{boot,home}/**", "home/x", True),
        ("lib/{readline,xx*}.*", "lib/readline.cpython-313.so", True),
        ("a+b", "aab", False),
    ],
)
def test_globs_mean_what_they_say(glob: str, path: str, meant: bool) -> None:
    assert tree.matches(path, [glob]) is meant


def test_a_tree_packs_to_the_same_bytes_whatever_its_times_and_order(tmp_path: Path) -> None:
    sums = []
    for number, names in enumerate((("a", "b", "c"), ("c", "b", "a"))):
        root = tmp_path / f"tree{number}"
        (root / "folder").mkdir(parents=True)
        for name in names:
            (root / "folder" / name).write_text(name)
            os.utime(root / "folder" / name, (number, number))
        (root / "link").symlink_to("folder/a")
        os.link(root / "folder/a", root / "second")
        sums.append(tree.pack(root, tmp_path / f"{number}.tar"))
    assert sums[0] == sums[1]


def test_nothing_special_gets_into_a_layer(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    os.mkfifo(tmp_path / "root/pipe")
    with pytest.raises(RuntimeError, match="pipe"):
        tree.pack(tmp_path / "root", tmp_path / "x.tar")


def test_a_wheel_is_unpacked_to_where_its_parts_belong(tmp_path: Path) -> None:
    wheel = tmp_path / "tool-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tool/__init__.py", "def main(): ...\n")
        archive.writestr("planted.pth", "import evil\n")
        archive.writestr("tool-1.data/scripts/helper", "#!python\nprint(1)\n")
        archive.writestr("tool-1.data/data/share/tool/rules", "x")
        archive.writestr("tool-1.dist-info/entry_points.txt", "[console_scripts]\ntool = tool:main\n")
        archive.writestr("tool-1.dist-info/RECORD", "")
    wheels.unpack(wheel, tmp_path / "root")
    found = {str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*") if path.is_file()}
    site = str(tree.SITE)
    assert found == {
        f"{site}/tool/__init__.py",
        f"{site}/tool-1.dist-info/entry_points.txt",
        "usr/local/bin/helper",
        "usr/local/bin/tool",
        "usr/local/share/tool/rules",
    }
    assert (tmp_path / "root/usr/local/bin/helper").read_text().startswith("#!/usr/bin/python3\n")
    assert "from tool import main" in (tmp_path / "root/usr/local/bin/tool").read_text()
    assert (tmp_path / "root/usr/local/bin/tool").stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["../../etc/passwd", "x-1.data/scripts/../../../etc/passwd"])
def test_a_wheel_with_a_member_that_leaves_is_refused(tmp_path: Path, name: str) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(RuntimeError, match="leaves its place"):
        wheels.unpack(wheel, tmp_path / "root")
    assert not (tmp_path / "etc").exists()


def test_a_virtual_environment_holds_its_own_packages_and_runs_them_by_its_own_python(tmp_path: Path) -> None:
    wheel = tmp_path / "tool-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tool/__init__.py", "def main(): ...\n")
        archive.writestr("shim.pth", "import tool\n")
        archive.writestr("tool-1.dist-info/entry_points.txt", "[console_scripts]\ntool = tool:main\n")
    wheels.lay_venv("opt/own", tmp_path)
    wheels.unpack(wheel, tmp_path, wheels.venv("opt/own"))
    site = tmp_path / "opt/own/lib/python3.13/site-packages"
    assert {"tool", "shim.pth"} <= {path.name for path in site.iterdir()}
    assert (tmp_path / "opt/own/bin/tool").read_text().startswith("#!/opt/own/bin/python3\n")
    assert os.readlink(tmp_path / "opt/own/bin/python3") == "/usr/bin/python3.13"
    assert "include-system-site-packages = false" in (tmp_path / "opt/own/pyvenv.cfg").read_text()
    assert not (tmp_path / "usr").exists()


def test_a_package_may_be_for_one_architecture_alone() -> None:
    assert only(["git", "gcc-x86-64 [amd64]", "gcc-aarch64 [arm64]"], "amd64") == ["git", "gcc-x86-64"]
    with pytest.raises(Refused, match="no package"):
        only(["git (>= 2)"], "amd64")


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name.endswith("/run") else 0o644
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_an_npm_package_is_unpacked_below_its_name_without_its_links(tmp_path: Path) -> None:
    packed = tarball(tmp_path / "x.tgz", {"package/package.json": b"{}", "package/bin/run": b"#!/bin/sh\n"})
    npm.unpack("@scope/tool@1.0.0-linux", packed, tmp_path / "root")
    home = tmp_path / "root" / npm.MODULES / "@scope/tool"
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == ["bin", "bin/run", "package.json"]
    assert (home / "bin/run").stat().st_mode & 0o111
    with pytest.raises(RuntimeError, match="leaves its place"):
        npm.unpack("x@1", tarball(tmp_path / "y.tgz", {"package/../../../up": b""}), tmp_path / "root")


def test_an_npm_package_without_an_integrity_is_refused(tmp_path: Path) -> None:
    folder = image(tmp_path / "box", f'from = "base"\nnpm = ["tool@1", "other@1 (not-{architecture()})"]')
    with pytest.raises(Refused, match="no package"):
        read(str(folder)).packages_of_npm()
    image(folder, 'from = "base"\nnpm = ["tool@1"]')
    with pytest.raises(Refused, match="lock box"):
        read(str(folder)).packages_of_npm()
    (folder / "npm.lock").write_text("tool@1 sha512-abc\n")
    assert read(str(folder)).packages_of_npm() == [("tool@1", "sha512-abc")]


def test_the_key_changes_with_links_environments_and_their_locks(tmp_path: Path) -> None:
    folder = image(tmp_path / "box", 'from = "base"')
    keys = [key(read(str(folder)))]
    image(folder, 'from = "base"\n[links]\n"usr/bin/cc" = "gcc"')
    keys.append(key(read(str(folder))))
    image(folder, 'from = "base"\n[venvs]\n"opt/own" = "own"')
    keys.append(key(read(str(folder))))
    (folder / "own.txt").write_text("tool==1 --hash=sha256:00\n")
    keys.append(key(read(str(folder))))
    assert len(set(keys)) == 4


def test_a_lock_is_read_as_it_is_written(tmp_path: Path) -> None:
    package = Package("libc6", "2.41-12", "amd64", "ab" * 32)
    (tmp_path / "debian.lock").write_text(f"# made by lock\n{package}\n")
    assert read_lock(tmp_path / "debian.lock") == [package]
    assert read_lock(tmp_path / "none") == []


def test_the_pulled_road_names_the_same_user_and_lock(tmp_path: Path) -> None:
    spec = read("base")
    text = pulled.context(spec, None).decode(errors="replace")
    assert "FROM python:3.13" in text
    assert "--require-hashes" in text
    assert "USER 10001:10001" in text


@pytest.mark.parametrize(("name", "deploy"), [("marco", "./deploy.sh`"), ("hopper-agents", "./deploy.sh --agents`")])
def test_an_image_that_is_missing_is_told_with_what_makes_it_as_one_types_it(
    name: str, deploy: str, tmp_path: Path
) -> None:
    with pytest.raises(SandboxError) as docker, speaking_plainly(f"madlab-01234567/{name}:current"):
        raise ImageNotFound("no such image")
    build = f"{sys.executable} -m sandbox.images --lab 01234567 build {name}"
    assert str(docker.value).endswith(f"run `{deploy}, or `{build}`")
    with pytest.raises(SandboxError) as unpacked:
        Images("01234567", tmp_path).find(name)
    assert str(unpacked.value).endswith(f"run `{deploy}, or `{build} --engine bubblewrap`")
