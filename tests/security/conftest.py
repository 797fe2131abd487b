"""One lab for each runtime and each file of tests: what one act did to it, the next one would meet."""

from collections.abc import AsyncIterator

import pytest

from tests.docker_lab import need_runtime
from tests.security.hostile_lab import Site, site_of


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """As everywhere; wider, because a lab is shared by a module."""
    return "asyncio"


@pytest.fixture(scope="module", params=["runc", "runsc"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that `madlab doctor` accepts: it asks the same probe, so what is skipped here is refused there."""
    need_runtime(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
async def site(runtime: str, anyio_backend: str) -> AsyncIterator[Site]:
    """The lab that this module's acts are done to."""
    async with site_of(runtime) as site:
        yield site
