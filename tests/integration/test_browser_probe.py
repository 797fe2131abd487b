"""Chromium's own sandbox within ours: seen where it stands, and missed where our profile does not let it be made."""

from dataclasses import replace

import pytest

from sandbox import browser
from sandbox.browser import judged, probe_browser
from sandbox.engine import Exit
from sandbox.engines.docker.engine import DockerEngine
from tests.docker_lab import built, need_runtime

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
async def test_a_page_is_held_by_a_sandbox_of_the_browser(runtime: str) -> None:
    engine = DockerEngine(need_runtime(runtime))
    built("marco")
    check = await probe_browser(engine, runtime)
    assert check.ok, check.detail
    await engine.aclose()


async def test_with_the_usual_system_calls_it_cannot_be_made_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = DockerEngine(need_runtime("runc"))
    built("marco")
    monkeypatch.setattr(browser, "PROFILE", replace(browser.PROFILE, calls="usual"))
    check = await probe_browser(engine, "runc")
    assert not check.ok
    assert "No usable sandbox" in check.detail
    assert "runtime" in check.mend
    await engine.aclose()


@pytest.mark.parametrize(
    "seen",
    [
        '{"user": false, "seccomp": "2", "filters": "2", "capabilities": "0000000000000000"}',
        '{"user": true, "seccomp": "2", "filters": "1", "capabilities": "0000000000000000"}',
        '{"user": true, "seccomp": "0", "filters": "0", "capabilities": "0000000000000000"}',
        '{"user": true, "seccomp": "2", "filters": "2", "capabilities": "0000000000000001"}',
        '{"said": "it crashed"}',
        "no answer at all",
        "",
    ],
)
def test_whatever_is_missing_is_no(seen: str) -> None:
    assert not judged(Exit(0, "exited", f"noise\n{seen}\n")).ok
