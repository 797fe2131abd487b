"""Control groups of our own: which files get what, where they may be made, and that nothing stays in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.cgroup import starved_by_log
from sandbox.groups import OURS, Limits, Places, entrances, remove

LIMITS = Limits(memory_bytes=64 << 20, pids=65, cpus=0.25)
USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/madlab.service"


def hierarchy(root: Path, *delegated: str) -> Path:
    """A root of version 2, with folders as the kernel makes them; those that were delegated can be divided."""
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    for each in delegated:
        folder = root / each
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.subtree_control", "cgroup.procs"):
            (folder / name).touch()
    return root


def test_version_2_is_divided_at_the_highest_group_that_was_delegated(tmp_path: Path) -> None:
    service = "user.slice/user-1000.slice/user@1000.service"
    root = hierarchy(tmp_path, service, f"{service}/{OURS}", f"{service}/app.slice/madlab.service")
    places = Places.find(root, USER)
    assert places is not None
    assert places.folders == {"": root / service / OURS}
    for folder in (root / service, root / service / OURS):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_version_2_that_nobody_delegated_has_no_place(tmp_path: Path) -> None:
    assert Places.find(hierarchy(tmp_path), USER) is None


def test_version_1_has_a_place_where_each_controller_lets_us(tmp_path: Path) -> None:
    own = "4:memory:/a\n3:pids:/\n2:cpu,cpuacct:/b\n1:name=systemd:/c\n0::/"
    for folder in ("memory", "pids", "cpu,cpuacct"):
        (tmp_path / folder).mkdir()
    places = Places.find(tmp_path, own)
    assert places is not None
    both = tmp_path / "cpu,cpuacct" / OURS
    assert places.group("x") == {
        "memory": tmp_path / "memory" / OURS / "x",
        "pids": tmp_path / "pids" / OURS / "x",
        "cpu": both / "x",
        "cpuacct": both / "x",
    }
    assert len(entrances(places.group("x"))) == 3  # one for each folder


def test_version_1_without_a_controller_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    assert Places.find(tmp_path, "4:memory:/\n3:pids:/\n2:cpu:/\n1:cpuacct:/") is None


def test_each_limit_goes_into_its_file(tmp_path: Path) -> None:
    one = {each: tmp_path / each for each in ("memory", "pids", "cpu", "cpuacct")}
    for folder in one.values():
        folder.mkdir()
    Places(one).make("x", LIMITS)
    assert (one["memory"] / "x/memory.limit_in_bytes").read_text() == str(64 << 20)
    assert (one["pids"] / "x/pids.max").read_text() == "65"
    assert (one["cpu"] / "x/cpu.cfs_quota_us").read_text() == "25000"
    two = Places({"": tmp_path / "two"})
    (tmp_path / "two").mkdir()
    two.make("x", LIMITS)
    assert {each.name: each.read_text() for each in (tmp_path / "two/x").iterdir()} == {
        "memory.max": str(64 << 20),
        "pids.max": "65",
        "cpu.max": "25000 100000",
    }


def test_a_group_is_emptied_and_removed_in_a_real_hierarchy(request: pytest.FixtureRequest) -> None:
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [Path(place) for place, kind in mounts if kind == "cgroup2" and os.access(place, os.W_OK)]
    if not found:
        pytest.skip("no hierarchy of version 2 may be written here")
    group = {"": found[0] / f"madlab-test-{os.getpid()}"}
    group[""].mkdir()
    request.addfinalizer(lambda: remove(group))
    code = f"open({entrances(group)[0]!r}, 'w').write('0'); print('in', flush=True); import time; time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        assert remove(group)
        assert child.wait(timeout=10) == -9
    assert not group[""].exists()
    assert remove(group)  # what is gone is gone


def test_the_kernels_log_tells_of_a_group_that_is_gone(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("3,1,2,-;oom-kill:nodemask=(null),oom_memcg=/docker/aaa,task_memcg=/docker/bbb,task=exe,pid=3\n")
    assert starved_by_log("aaa", str(log))
    assert not starved_by_log("bbb", str(log))
    assert not starved_by_log("aaa", str(tmp_path / "nowhere"))
