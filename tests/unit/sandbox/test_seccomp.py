"""The list of system calls: what is allowed, what is not, and that the two never meet."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from sandbox import inside
from sandbox.profiles import seccomp
from sandbox.profiles.seccomp import ALLOWED, DENIED, names

RULES: list[dict[str, Any]] = json.loads(seccomp.text())["syscalls"]


def rules_for(call: str) -> list[dict[str, Any]]:
    return [rule for rule in RULES if call in rule["names"]]


def test_what_is_not_named_is_refused() -> None:
    assert json.loads(seccomp.text())["defaultAction"] == "SCMP_ACT_ERRNO"


def test_no_call_is_both_allowed_and_denied() -> None:
    assert names(ALLOWED) & names(DENIED) == set()


def test_no_call_is_listed_twice() -> None:
    for groups in (ALLOWED, DENIED):
        words = [word for group in groups.values() for word in group.split()]
        assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(
    "call",
    [
        *("io_uring_setup", "userfaultfd", "bpf", "keyctl", "add_key", "ptrace", "perf_event_open", "kcmp", "unshare"),
        *("setns", "mount", "umount2", "pivot_root", "chroot", "fsopen", "open_tree", "move_mount", "mount_setattr"),
        *("name_to_handle_at", "open_by_handle_at", "modify_ldt", "process_vm_readv", "pidfd_getfd", "socketcall"),
        *("init_module", "finit_module", "kexec_load", "fanotify_init", "memfd_secret", "vmsplice", "iopl", "clone3"),
    ],
)
def test_the_dangerous_ones_have_no_rule_that_allows(call: str) -> None:
    assert [rule for rule in rules_for(call) if rule["action"] == "SCMP_ACT_ALLOW"] == []


def test_clone_is_allowed_only_without_a_namespace() -> None:
    [rule] = rules_for("clone")
    [condition] = rule["args"]
    assert (condition["index"], condition["op"], condition["valueTwo"]) == (0, "SCMP_CMP_MASKED_EQ", 0)
    every_namespace = 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
    assert condition["value"] == every_namespace


def test_clone3_is_missing_rather_than_refused_so_that_threads_start() -> None:
    assert [rule["action"] for rule in rules_for("clone3")] == ["SCMP_ACT_TRACE"]
    assert rules_for("ptrace")[0]["action"] == "SCMP_ACT_ERRNO"  # or somebody could be the tracer


def test_sockets_are_of_three_families_and_no_other() -> None:
    rules = rules_for("socket")
    assert sorted(rule["args"][0]["value"] for rule in rules) == [1, 2, 10]
    assert all(rule["args"][0]["op"] == "SCMP_CMP_EQ" for rule in rules)
    assert [rule["args"][0]["value"] for rule in rules_for("socketpair")] == [1]


def test_old_entries_into_the_kernel_are_not_offered() -> None:
    assert all(entry["subArchitectures"] == [] for entry in json.loads(seccomp.text())["archMap"])


def test_each_call_that_the_probe_tries_is_one_that_is_denied() -> None:
    assert set(inside.CALLS) <= names(DENIED)


def test_it_prints_itself_for_other_engines() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "sandbox.profiles.seccomp"], capture_output=True, text=True, check=True
    )
    assert json.loads(printed.stdout) == json.loads(seccomp.text())


def test_every_group_says_what_it_is_for() -> None:
    assert all(re.match(r"[a-z0-9]", reason) for reason in [*ALLOWED, *DENIED])


def test_a_browser_may_make_the_calls_of_its_own_sandbox_and_nothing_else_more() -> None:
    usual, browser = (
        {json.dumps(rule | {"names": [name]}, sort_keys=True) for rule in rules for name in rule["names"]}
        for rules in (RULES, json.loads(seccomp.text("browser"))["syscalls"])
    )
    more = [json.loads(each) for each in browser - usual]
    assert sorted((rule["names"][0], *(each["value"] for each in rule.get("args", ()))) for rule in more) == [
        ("chroot",),
        ("clone", 0x10000011),
        ("clone", 0x20000011),
        ("clone", 0x70000011),
        ("unshare", 0x10000000),
    ]
    assert all(each["op"] == "SCMP_CMP_EQ" for rule in more for each in rule.get("args", ()))
    assert {json.loads(each)["names"][0] for each in usual - browser} == {"chroot", "unshare"}
