"""The core, read first: what is opened in which order, and so what stands on what.

    home        the data directory, locked                          everything is lost without it
    journal     one writer; views of runs, links, members, names    what happened
    rogers      the bus over the journal                            who hears of it
    horace      blobs by digest                                     what is too large to say
    turing      the vault, if it can be unlocked without a person; who may use what in it
    fiedler     models, budgets, the ledger; settles what an earlier core left open
    egress      the requests of runs that may reach the world
    dewey       the index of all that was said and done; follows the journal
    workers     sandboxes with a door each                          where untrusted code runs
    models      local models: workers that serve one, while it is asked
    residents   MADs of this process, or beside it
    lives       each run's way from its request to its end
    dispatcher  starts the eMAD that a message waits for; first takes back what an earlier core left
    door        HTTP on a unix socket and on loopback: people, CLI, the page, clients
    upkeep      forgets what policy says, once an hour
    telemetry   tells a collector, where the settings name one, what happened: never what was said

Leaving is the reverse. `kill -9` at any line is a restart and a replay; stopping nicely only saves time. SIGTERM and
SIGINT leave the workers of live runs to the next core, which has one lease to come back; `madlab down` ends them.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TextIO, cast

import anyio
import structlog
from anyio import create_task_group

from core import VERSION
from core.admission import Admission
from core.cast import OWN_EMADS, OWN_RESIDENTS, cast_of, model_profile
from core.config import Config, load
from core.dewey.archives import Archives
from core.dewey.library import Library
from core.dewey.mad import Dewey
from core.dewey.shelf import Shelf
from core.dispatcher import Dispatcher
from core.egress.broker import Broker
from core.fiedler.fiedler import Fiedler
from core.fiedler.keys import KeyFiles, VaultKeys
from core.fiedler.ledger import VIEWS as LEDGER_VIEWS
from core.fiedler.ledger import Ledger
from core.fiedler.money import picodollars
from core.fiedler.providers.hosted import Hosts
from core.fiedler.settings import SECRET
from core.fiedler.store import Store
from core.grace.door.api import door
from core.grace.door.belongings import BelongingsView
from core.grace.door.serving import serve, serve_web
from core.grace.door.tokens import TokensView
from core.home import Home
from core.horace.names import Names
from core.horace.store import Horace
from core.isolation import Isolation
from core.lab import Lab
from core.lives import Dispatchable, Lives
from core.memory import give_memory_back
from core.models import LocalModels
from core.policy.approvals import ApprovalsView
from core.policy.checkpoints import KEY, Checkpoints
from core.policy.policy import load_policy
from core.policy.taint import TaintView
from core.policy.versions import PolicyView, record
from core.ports.copies import CopiesView
from core.ports.links import LinksView
from core.ports.packages import InstalledView
from core.ports.services import Services
from core.products import ProductsView
from core.redaction.canaries import IncidentsView, lab_key
from core.redaction.entries import Clerk
from core.redaction.logs import Strained
from core.redaction.redactor import Redactor
from core.redaction.refusal import inspected
from core.residents import Residents
from core.rogers.bus import Rogers
from core.rogers.entry import View
from core.rogers.journal import Journal
from core.rogers.retention import DAY_S
from core.rogers.tags import TagsView
from core.rogers.views import VIEWS
from core.runs import Runs, RunsView
from core.telemetry.logs import LINES
from core.telemetry.measures import Measures
from core.telemetry.past import Past
from core.telemetry.telemetry import Telemetry
from core.troubles import TroublesView
from core.turing.grants import GrantsView
from core.turing.hardening import keep_memory_private
from core.turing.turing import Turing
from core.upkeep import tend
from core.workers import Worker, Workers, opener
from sandbox.engine import Engine
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.engines.docker.engine import DockerEngine
from sandbox.engines.process import ProcessEngine
from sandbox.images.build import default_cache
from sandbox.images.unpacked import Images
from sandbox.pool import Pool
from sandbox.seen import Seen

ARCHIVES = "archives"  # in the home
REFILL_S = 0.1  # what a handed-over worker has for its first words before the pool starts another one
logger = structlog.get_logger()


def run(home: Home) -> None:
    """Runs the core until it is told to stop.

    Raises:
        Conflict: another core has this home.
        InvalidArgument: a setting or a manifest is wrong.
        Unavailable: the journal cannot be opened.
    """
    redactor = Redactor()
    _log_as_json(redactor)
    give_memory_back()
    keep_memory_private()
    with home.locked():
        anyio.run(_main, home, redactor)
    os._exit(0)  # everything is closed; the tear-down of the interpreter would only take time


async def _main(home: Home, redactor: Redactor) -> None:
    config = load(home)
    async with open_lab(home, config, redactor=redactor) as lab, create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, lab)
        await lab.stopping.wait()
        logger.info("stopping", keep_runs=lab.keep_runs)
        if lab.keep_runs:
            lab.dispatcher.leave_workers()
        else:
            await lab.dispatcher.cancel_all("the lab was stopped")
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_lab(
    home: Home,
    config: Config,
    *,
    own: Mapping[str, Callable[[], Any]] = OWN_EMADS,
    redactor: Redactor | None = None,
) -> AsyncIterator[Lab]:
    """Opens everything, in order; ready when the body begins. `own` are the MADs that run in the core for a message,
    `redactor` is the one that the log goes through.
    """
    redactor = redactor or Redactor()
    clerk = Clerk(redactor)
    policy = load_policy(config.policy)
    cast = cast_of(config, own)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(open_journal(home, clerk))
        rogers = await stack.enter_async_context(Rogers(journal))
        checkpoints = await stack.enter_async_context(_checkpoints(home, config, journal))
        quota = int(config.files.quota_gb * 1024**3)
        horace = await stack.enter_async_context(
            Horace(home.path / "blobs", journal, quota_bytes=quota, inspect=partial(inspected, redactor))
        )
        models = LocalModels(Store.locate(), model_profile(config))
        turing = await stack.enter_async_context(Turing(home.path, home.lab, journal, config.vault, redactor))
        fiedler = await stack.enter_async_context(open_fiedler(home, config, journal, turing, redactor, models))
        services = Services(
            *(journal, rogers, horace, cast.registry, fiedler),
            egress=await stack.enter_async_context(open_egress(home, config)),
            turing=turing,
            redactor=redactor,
            children_max=config.runs.children_max,
            canary_key=lab_key(home.path / "canaries") if config.runs.decoys else None,
            policy=policy,
            approval_s=config.approvals.expire_s,
        )
        clerk.noticed = services.canaries.noticed
        await stack.enter_async_context(services.approvals)
        held = await record(journal, policy)
        archives = Archives(journal, home.path / ARCHIVES, home.lab, horace)
        await archives.finish()
        rogers.filled = archives.filled
        library = Library(journal, home.path / "dewey.db", horace, archives.filled_now)
        await stack.enter_async_context(library)
        played = dict(cast.residents)
        if "dewey" not in config.residents:  # ours, who reads what no MAD is given
            played["dewey"] = OWN_RESIDENTS["dewey"], partial(Dewey, services, library, archives)
        engines = await stack.enter_async_context(_engines(home))
        isolation = Isolation(engines, Seen(default_cache().parent / "seen"))
        workers = Workers(home.lab, home.runtime / "s", engines, isolation, config.runs.lease_s, redactor)
        runs = Runs(journal, lab_key(home.path / "runs"))
        admission = Admission(max_running=config.runs.max_running, memory_mb=config.sandbox.memory_mb or _memory_mb())
        residents = Residents(services, workers, played)
        pools: dict[str, Pool[Worker]] = {}
        lives = Lives(services, runs, workers, admission, cast.emads, pools)
        services.canaries.lives = lives
        dispatcher = Dispatcher(services, runs, workers, lives, pools)
        telemetry = _telemetry(home, config, services, runs, Measures(services, lives, dispatcher, pools))
        lab = Lab(home, config, services, runs, dispatcher, residents, pools, library, archives, telemetry)
        tasks = await stack.enter_async_context(create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        await tasks.start(dispatcher.serve)
        await tasks.start(models.serve, services, workers, admission)
        await tasks.start(residents.serve)
        await tasks.start(isolation.serve, {each.profile.runtime for each in cast.emads.values() if each.profile})
        for name, pool in _pools(workers, cast.emads).items():
            pools[name] = await stack.enter_async_context(pool)
        faces = door(lab)
        await faces.state.tokens.load()
        tasks.start_soon(faces.state.feed.serve)
        tasks.start_soon(faces.state.mcp.serve)
        await tasks.start(serve, faces, home.api_socket)
        lab.web = await tasks.start(serve_web, faces, home, config.web)
        tasks.start_soon(tend, services, config)
        tasks.start_soon(checkpoints.serve)
        tasks.start_soon(
            archives.serve, config.archive.idle_days * DAY_S or None, config.archive.keep_days * DAY_S or None
        )
        tasks.start_soon(telemetry.serve)
        settle_memory()
        lab.ready = True
        logger.info(
            "ready",
            lab=home.lab,
            socket=str(home.api_socket),
            web=lab.web,
            mads=sorted(cast.registry.mads),
            policy=held.version,
        )
        yield lab


def settle_memory() -> None:
    """What was opened stays: the garbage collector need not look at it again, nor as often as in a short script."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def open_journal(home: Home, clerk: Clerk | None = None) -> Journal:
    """The journal of a home, with every view that the core keeps; enter it to open it. `clerk` cleans what goes in."""
    ours: list[View] = [RunsView(), LinksView(), Names(), ApprovalsView(), TaintView(), PolicyView(), GrantsView()]
    ours += [
        CopiesView(),
        TokensView(),
        BelongingsView(),
        IncidentsView(),
        InstalledView(),
        ProductsView(),
        TagsView(),
        TroublesView(),
    ]
    views = [*VIEWS, *LEDGER_VIEWS, *ours]
    shelf = Shelf(home.path / ARCHIVES)
    return Journal(home.path / "journal.db", views, filled=shelf.filled, clean=clerk.clean if clerk else None)


def open_fiedler(
    home: Home, config: Config, journal: Journal, turing: Turing, redactor: Redactor, hosts: Hosts | None = None
) -> Fiedler:
    """The models of a lab, with their budgets; enter it to open it. `hosts` keep the workers of local models."""
    day = config.llm.usd_per_day
    ledger = Ledger(
        journal,
        usd_per_day=None if day is None else picodollars(day),
        tokens_per_day=config.llm.tokens_per_day,
    )
    paths = {name: path for name, each in config.providers.items() if (path := each.key_path(home.path)) is not None}
    secrets = {name: secret for name, each in config.providers.items() if (secret := each.key_secret) is not None}
    return Fiedler(
        ledger,
        VaultKeys(secrets, turing.open, KeyFiles(paths)),
        orchestra=config.llm,
        providers=config.providers,
        models=config.models,
        hosts=hosts,
        redactor=redactor,
    )


def open_egress(home: Home, config: Config) -> Broker:
    """The way out of a lab; enter it to open it."""
    ca_file = config.egress.ca_file
    return Broker(config.egress.model_copy(update={"ca_file": ca_file and home.path / ca_file}))


def _telemetry(home: Home, config: Config, services: Services, runs: Runs, measures: Measures) -> Telemetry:
    """What is told of the lab: always to whoever asks at the door, to a collector where the settings name one."""
    name, key, turing = "telemetry", config.telemetry.key or "", services.turing
    secrets = {name: key.removeprefix(SECRET)} if key.startswith(SECRET) else {}
    files = KeyFiles({name: home.path / "keys" / key} if key and not secrets else {})
    keys = files if turing is None else VaultKeys(secrets, turing.open, files)
    residents = {each.name for each in services.registry.mads.values() if each.kind == "resident"}
    ca_file = config.telemetry.ca_file
    return Telemetry(
        config.telemetry.model_copy(update={"ca_file": ca_file and home.path / ca_file}),
        measures,
        Past(services.journal, runs, residents.__contains__),
        home.lab,
        VERSION,
        partial(keys.find, name),
        services.redactor.redact_text,
    )


def _checkpoints(home: Home, config: Config, journal: Journal) -> Checkpoints:
    audit = config.audit
    path = home.path / audit.checkpoint if audit.checkpoint is not None else None
    return Checkpoints(journal, home.lab, home.path / KEY, path=path, command=audit.command, every_s=audit.minutes * 60)


@asynccontextmanager
async def _engines(home: Home) -> AsyncIterator[dict[str, Engine]]:
    """What starts sandboxes, by runtime."""
    docker = DockerEngine(home.lab)
    try:
        yield {
            "runc": docker,
            "runsc": docker,
            "bwrap": BubblewrapEngine(home.lab, home.runtime / "b", Images(home.lab, default_cache())),
            "process": ProcessEngine(home.lab, home.runtime / "p"),
        }
    finally:
        await docker.aclose()


def _pools(workers: Workers, emads: Mapping[str, Dispatchable]) -> dict[str, Pool[Worker]]:
    return {
        name: Pool(
            partial(opener, workers, name, each.profile),
            each.profile.warm,
            ended=lambda worker: worker.sandbox.wait(),
            refill_after=REFILL_S,
        )
        for name, each in emads.items()
        if each.profile is not None and each.profile.warm
    }


def _memory_mb() -> int:
    """Three quarters of the machine's memory: the rest is the core's and the machine's own."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2 * 3 // 4


async def _stop_on_signal(lab: Lab) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for each in signals:
            logger.info("signal", number=int(each))
            lab.stop(keep_runs=True)
            return


def _log_as_json(redactor: Redactor) -> None:
    """Our logs as JSON lines on standard error; the libraries' warnings with them. No secret passes."""
    sys.stderr = cast(TextIO, Strained(sys.stderr, redactor))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            LINES,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format='{"level": "warning", "event": "%(message)s"}')
