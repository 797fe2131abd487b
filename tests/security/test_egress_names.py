"""DNS rebinding, with a real name server, real addresses and real sockets: an internet of our own in a namespace."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UNSHARE = ["unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--net", "--mount"]
DENIED = "PERMISSION_DENIED rule address: "


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    tried = subprocess.run(
        [*UNSHARE, "mount", "--bind", "/etc/hosts", "/etc/resolv.conf"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"no network namespace with a name server of its own can be made here: {tried.stderr.decode()}")
    command = [*UNSHARE, sys.executable, "-m", "tests.security.rebinding"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def test_public_addresses_are_reached_by_name_and_by_number(told: dict[str, Any]) -> None:
    assert told["honest.test"] == told["two.test"] == ["public"] * 4
    assert told["by address"] == "public"


def test_a_name_that_changes_to_a_private_address_is_refused_from_then_on(told: dict[str, Any]) -> None:
    for name in ("rebinds.test", "rebinds-to-loopback.test"):
        first, *later = told[name]
        assert first == "public"
        assert all(each.startswith(DENIED) for each in later), later


def test_a_name_that_flips_is_judged_each_time(told: dict[str, Any]) -> None:
    assert [each.startswith(DENIED) for each in told["flips.test"]] == [True, False, True, False]


@pytest.mark.parametrize(
    "name",
    [
        *("private.test", "mixed.test", "mapped.test", "translated.test"),
        *("unspecified.test", "metadata.test", "alias.test"),
    ],
)
def test_a_name_that_leads_inside_in_any_way_is_refused(told: dict[str, Any], name: str) -> None:
    assert all(each.startswith(DENIED) for each in told[name]), told[name]


def test_a_connection_that_is_kept_asks_no_second_time(told: dict[str, Any]) -> None:
    assert told["kept"] == ["public"] * 3
    assert told["asked for kept"] == 1


def test_a_dead_address_is_passed_over_and_a_name_that_is_none_is_said(told: dict[str, Any]) -> None:
    assert told["dead-first.test"] == ["public"] * 4
    assert all(each.startswith(DENIED) for each in told["nobody.test"])


def test_names_whose_servers_are_silent_hold_up_their_own_run_only(told: dict[str, Any]) -> None:
    assert told["meanwhile"] == "public"
    assert told["silent"] == {"RESOURCE_EXHAUSTED": 4, "UNAVAILABLE": 8}


def test_nobody_ever_came_to_the_private_server(told: dict[str, Any]) -> None:
    assert told["public"]
    assert told["visits"] == 0
