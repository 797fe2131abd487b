"""What every test starts from: one event loop, markers from folder names, and a lab in a temporary place."""

import gc
import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = ("unit", "contract", "integration", "e2e", "fault", "security")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """grpc.aio knows asyncio only. Of the whole session, so that a lab can be a whole module's."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def _one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    """For all tests of a process: gRPC's library tells its last events late, and of a loop that is closed by then, it
    tells whichever test runs next, which fails."""
    yield  # noqa: PT022  that it goes on is what holds the loop


def pytest_configure(config: pytest.Config) -> None:
    for name in ("NO_PROXY", "no_proxy"):  # a proxy of whoever runs the tests has no part in what they say to loopback
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    for each in KINDS:
        config.addinivalue_line("markers", f"{each}: tests/{each}")
    config.addinivalue_line("markers", "docker: needs a Docker engine and the built images")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the tests import stays for good: to look for garbage in it is a seventh of what collecting costs."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in KINDS:
            item.add_marker(kind)


@pytest.fixture(autouse=True)
def _settings_of_the_shell_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab under test reads no `MADLAB_*` variable of whoever runs the tests, least of all MADLAB_HOME."""
    for each in [name for name in os.environ if name.startswith("MADLAB_") and name != "MADLAB_FULL"]:
        monkeypatch.delenv(each)
