"""The lab as its doors see it: everything `core.app` has opened, and the wish to stop."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from anyio import Event

from core.config import Config
from core.dewey.archives import Archives
from core.dewey.library import Library
from core.dispatcher import Dispatcher
from core.home import Home
from core.horace.store import Horace
from core.ports.services import Services
from core.registry import Registry
from core.residents import Residents
from core.rogers.bus import Rogers
from core.rogers.journal import Journal
from core.runs import Runs
from core.telemetry.telemetry import Telemetry
from core.workers import Worker
from sandbox.pool import Pool


@dataclass
class Lab:
    """One open lab."""

    home: Home
    config: Config
    services: Services
    runs: Runs
    dispatcher: Dispatcher
    residents: Residents
    pools: Mapping[str, Pool[Worker]]
    library: Library
    archives: Archives
    telemetry: Telemetry
    web: str = ""  # where the page is: "http://127.0.0.1:8217"; empty while nothing listens there
    origin: str = ""  # what sessions are bound to: another one after the port was given up (`core.grace.door.origin`)
    ready: bool = False
    started: float = field(default_factory=time.time)  # seconds since the epoch
    stopping: Event = field(default_factory=Event)
    keep_runs: bool = True  # when it stops: leave the workers to the next core, or end their runs

    @property
    def journal(self) -> Journal:
        """The journal."""
        return self.services.journal

    @property
    def rogers(self) -> Rogers:
        """The bus."""
        return self.services.rogers

    @property
    def horace(self) -> Horace:
        """The files."""
        return self.services.horace

    @property
    def registry(self) -> Registry:
        """The MADs."""
        return self.services.registry

    def stop(self, *, keep_runs: bool) -> None:
        """Asks the core to end: with its runs, or leaving their workers to a core that is back within the lease."""
        self.keep_runs = keep_runs
        self.stopping.set()
