"""What changed: runs that a client watches, and the list of tools.

A watched run is followed through its log's stream, at the door as everything is, so nobody hears of a run that it may
not see. The list of tools changes when a core comes back with other MADs, or when the caller's rights change; it is
looked at once in a while, and only while somebody asked to be told.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from hashlib import sha256

import structlog
from anyio import CancelScope, create_task_group, sleep
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated, ToolsListChanged
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from core.grace.gateway.calls import Context
from core.grace.gateway.door import Door, quoted
from core.grace.gateway.resources import SCHEME
from protos.errors import Error, Exhausted, InvalidArgument

LOOK_S = 30.0  # between two looks at the tools
STREAMS = 32  # of one owner, at once
WATCHED = 64  # runs of one owner, at once; the requests of a token are bounded too (`tokens.AT_ONCE`)
SCOPES = "madlab.watched"

Watch = Callable[[], Awaitable[None]]

logger = structlog.get_logger()


def run_of(uri: str) -> str:
    """The run that a resource is about.

    Raises:
        InvalidArgument: it is none that can be watched.
    """
    kind, _, run = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or kind != "runs" or not run or "/" in run or "?" in run:
        raise InvalidArgument("only runs can be watched", next="subscribe to madlab://runs/ID")
    return run


async def watch_run(door: Door, run: str, changed: Callable[[], Awaitable[None]]) -> None:
    """Calls `changed` for each line of a run's log from now on, and when it has ended."""
    lines = (await door.get(f"/runs/{quoted(run)}/logs", limit=1000))["logs"]
    after = lines[-1]["sequence"] if lines else 0
    async with door.follow(f"/runs/{quoted(run)}/logs", after=after) as events:
        async for _ in events:
            await changed()
    await changed()


async def watch_tools(door: Door, changed: Callable[[], Awaitable[None]]) -> None:
    """Calls `changed` when the caller's tools are others than they were."""
    known = await fingerprint(door)
    while True:
        await sleep(LOOK_S)
        found = await fingerprint(door)
        if found != known:
            known = found
            await changed()


async def fingerprint(door: Door) -> str:
    """The caller's tools in short."""
    return sha256(json.dumps(await door.get("/tools"), sort_keys=True).encode()).hexdigest()


class Watching:
    """Streams of `subscriptions/listen`, and what sessions of the older protocol watch; of each owner so many."""

    def __init__(self) -> None:
        self._streams: Counter[str] = Counter()
        self._watched: Counter[str] = Counter()

    async def listen(
        self, context: Context, door: Door, asked: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serves one stream, until its client leaves.

        Raises:
            InvalidArgument: it names what cannot be watched.
            NotFound: it names a run that the caller may not see.
            Exhausted: too many are open.
        """
        uris = list(asked.notifications.resource_subscriptions or ())
        if len(uris) > WATCHED:  # before each is looked up
            raise Exhausted(f"at most {WATCHED} runs are watched at once", next="choose from them")
        runs = {uri: run_of(uri) for uri in uris}
        for run in runs.values():
            await door.get(f"/runs/{quoted(run)}")
        bus = InMemorySubscriptionBus()
        with (
            _taken(self._streams, door.whose, 1, STREAMS, "streams of yours are open"),
            _taken(self._watched, door.whose, len(runs), WATCHED, "runs of yours are watched"),
        ):
            async with create_task_group() as tasks:
                for uri, run in runs.items():
                    changed = partial(bus.publish, ResourceUpdated(uri))
                    tasks.start_soon(_quietly, partial(watch_run, door, run, changed))
                if asked.notifications.tools_list_changed:
                    changed = partial(bus.publish, ToolsListChanged())
                    tasks.start_soon(_quietly, partial(watch_tools, door, changed))
                result = await ListenHandler(bus)(context, asked)
                tasks.cancel_scope.cancel()
            return result

    async def subscribe(self, tasks: TaskGroup, context: Context, door: Door, uri: str) -> None:
        """Tells a session of what changes in a run, until it has ended, or the session has.

        Raises:
            InvalidArgument: only runs can be watched.
            NotFound: there is no such run, or none that the caller may see.
            Exhausted: too many are watched.
        """
        run = run_of(uri)
        await door.get(f"/runs/{quoted(run)}")
        changed = partial(context.session.send_resource_updated, uri)
        place = _taken(self._watched, door.whose, 1, WATCHED, "runs of yours are watched")
        await _begin(tasks, context, uri, partial(watch_run, door, run, changed), place)

    def unsubscribe(self, context: Context, uri: str) -> None:
        """No more of that."""
        if scope := _scopes(context).pop(uri, None):
            scope.cancel()

    async def tools(self, tasks: TaskGroup, context: Context, door: Door) -> None:
        """Tells a session of the older protocol, which has listed the tools, when they change."""
        if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            changed = context.session.send_tool_list_changed
            await _begin(tasks, context, "tools", partial(watch_tools, door, changed), nullcontext())


async def _begin(
    tasks: TaskGroup, context: Context, what: str, watch: Watch, place: AbstractContextManager[None]
) -> None:
    """Has a session watch something, as long as it has a place for it.

    Raises:
        Exhausted: there is none.
    """
    scopes = _scopes(context)

    async def go(*, task_status: TaskStatus[None]) -> None:
        if what in scopes:
            task_status.started()
            return
        with place:
            scope = scopes[what] = CancelScope()
            task_status.started()
            with scope:
                await _quietly(watch)
            if scopes.get(what) is scope:
                del scopes[what]

    await tasks.start(go)


@contextmanager
def _taken(each: Counter[str], whose: str, count: int, most: int, what: str) -> Iterator[None]:
    """So many places of an owner's.

    Raises:
        Exhausted: it has not so many left.
    """
    if each[whose] + count > most:
        raise Exhausted(f"{each[whose]} {what} already, of {most}", next="end some, or wait until some have ended")
    each[whose] += count
    try:
        yield
    finally:
        each[whose] -= count
        if not each[whose]:
            del each[whose]


async def _quietly(watch: Watch) -> None:
    """Whoever watches is told nothing more when the lab says no."""
    try:
        await watch()
    except Error as error:
        logger.info("no longer watched", reason=error.code)
    except Exception:  # the gateway outlives any watch
        logger.exception("a watch failed in the gateway")


def _scopes(context: Context) -> dict[str, CancelScope]:
    """What a session watches; it ends with the session. The SDK keeps the connection's state for its handlers, and
    hands it out under no public name."""
    connection = context.session._connection
    if SCOPES not in connection.state:
        scopes: dict[str, CancelScope] = {}
        connection.state[SCOPES] = scopes

        def end() -> None:
            for each in list(scopes.values()):
                each.cancel()

        connection.exit_stack.callback(end)
    found: dict[str, CancelScope] = connection.state[SCOPES]
    return found
