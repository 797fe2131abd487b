"""One lab for each runtime and each file of tests: what one act did to it, the next one would meet."""

from collections.abc import AsyncIterator

import pytest

from tests.bubblewrap_lab import need_bubblewrap
from tests.docker_lab import need_runtime
from tests.security.hostile_lab import Site, site_of
from tests.sizes import full


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ordinarily(*runtimes): those of a run that is not full")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module that is cheap says `RUNTIMES = EVERY`; the others leave bubblewrap out, as it floods like runc."""
    chosen = any("runtime" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "runtime" in metafunc.fixturenames and not chosen:
        runtimes = getattr(metafunc.module, "RUNTIMES", ("runc", "runsc"))
        metafunc.parametrize("runtime", runtimes, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What another runtime would only repeat is for a full run. It is left out here, not among the parameters: those
    stay the module's, so that each lab is opened once."""

    def repeats(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("ordinarily")
        case = getattr(item, "callspec", None)
        return mark is not None and case is not None and case.params.get("runtime") not in mark.args

    if not full() and (left_out := [each for each in items if repeats(each)]):
        items[:] = [each for each in items if each not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="module")
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that `madlab doctor` accepts: it asks the same probe, so what is skipped here is refused there."""
    if request.param == "bwrap":
        need_bubblewrap()
    else:
        need_runtime(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
async def site(runtime: str, anyio_backend: str) -> AsyncIterator[Site]:
    """The lab that this module's acts are done to."""
    async with site_of(runtime) as site:
        yield site
