"""What a run has open in the world ends with the run."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

from anyio import Event, create_task_group, fail_after
from anyio.lowlevel import checkpoint

from core.egress.limits import Limits
from core.egress.request import Request, Traffic
from core.egress.urls import canonical
from protos.tools import Call, tool
from tests.labs import a_home, call, opened
from tests.servers.site import a_site


class Wanderer:
    """Waits until it may end."""

    run, begun, end = "", Event(), Event()

    @tool(effects="read")
    async def wander(self, call: Call) -> dict[str, str]:
        """Tells its run, and waits."""
        Wanderer.run = call.ctx.assignment.run
        self.begun.set()
        await self.end.wait()
        return {}


async def nothing() -> AsyncIterator[bytes]:
    return
    yield


async def test_the_connections_of_a_run_are_closed_when_it_ends() -> None:
    with a_home() as home, fail_after(60):
        async with opened(home, wanderer=Wanderer) as lab, a_site({}) as site, create_task_group() as tasks:
            broker = lab.services.egress
            assert broker is not None
            tasks.start_soon(call, lab, "wanderer", "wander")
            await Wanderer.begun.wait()
            limits = Limits(networks=(ip_network("127.0.0.1/32"),))
            url = canonical(f"http://127.0.0.1:{site.port}/")
            request = Request(f"run:{Wanderer.run}", "GET", url, [], 0, limits)
            assert len([each async for each in broker.fetch(request, nothing(), Traffic())]) == 2
            assert (site.visits, site.left) == (1, 0)
            Wanderer.end.set()
            while not site.left:
                await checkpoint()
