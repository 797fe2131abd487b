"""Where the page is: a socket that listens on loopback, the id of what it is to browsers, and who keeps both besides.

An *origin* is a port and the time for which it is ours without a gap. It outlives the core in its holder (`holding`),
for one lease; then it is over, whatever was opened for it is void, and the next one is at another port, chosen at
random: what somebody has planted in a browser at the old one meets nothing of ours again. Only a port of the settings
comes again, and what was opened there before is void all the same.

The holder is started when somebody is first given a token or a ticket, and with a core that has clients: a lab that
nobody visits has none.
"""

import errno
import os
import secrets
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from ipaddress import ip_address

import structlog
from anyio import CancelScope, Event, Lock, sleep, to_thread, wait_readable

from core.config import Web
from core.grace.door import holding
from core.grace.door.limits import WAITING
from core.home import Home
from protos.errors import Unavailable

PORT = "port"  # in the home: for people and scripts
USUAL = range(20_000, 30_000)  # ports that a lab chooses one of: below those that systems give to who connects
TRIES = 20
START_S = 20.0  # for a holder, on a busy machine
PAUSE_S = 1.0  # before another one is started in the place of one that ended
FOUND_BY = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # where an interpreter of its own kind finds itself

logger = structlog.get_logger()


class Origin:
    """The page's origin, as long as the core is there. `hold` sees to the rest."""

    def __init__(
        self, home: Home, listener: socket.socket, id: str, lease_s: float, line: socket.socket | None = None
    ) -> None:
        self.listener, self.id = listener, id
        self._home, self._lease_s = home, lease_s
        self._line = line  # to the holder, which ends a lease after this end is gone
        self._wanted, self._lock = Event(), Lock()
        if line is not None:
            self.want()

    @property
    def address(self) -> str:
        """As a browser says it: "http://127.0.0.1:8217"."""
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def want(self) -> None:
        """Has a holder started soon, where there is none."""
        self._wanted.set()

    async def hold(self) -> None:
        """Returns when a holder has it, too.

        Raises:
            Unavailable: none can be started.
        """
        async with self._lock:
            if self._line is None:
                with CancelScope(shield=True):
                    self._line = await to_thread.run_sync(self._start)
        self.want()

    async def watch(self) -> None:
        """Starts a holder when one is wanted, and another where it has ended, until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self.hold()
            except Unavailable as error:
                logger.warning("nothing keeps the page's port while the core is away", reason=error.message)
                self._wanted = Event()
                continue
            assert self._line is not None
            await wait_readable(self._line)  # it says nothing: it has ended
            self._line.close()
            self._line = None
            await sleep(PAUSE_S)

    async def close(self, *, keep: bool) -> None:
        """Leaves it to the holder, or gives it up."""
        self.listener.close()
        async with self._lock:  # whoever starts a holder just now has it first
            line, self._line = self._line, None
        if line is not None:
            if not keep:
                await to_thread.run_sync(holding.bid_end, line)
            line.close()

    def _start(self) -> socket.socket:
        """A line to a new holder."""
        ours, its = socket.socketpair()
        place = str(self._home.socket(holding.HOLDER))
        command = [sys.executable, "-I", "-S", "-B", holding.__file__, str(self._home.path), place]
        environment = {each: os.environ[each] for each in FOUND_BY if each in os.environ}
        ours.settimeout(START_S)
        try:
            with its, subprocess.Popen(
                command, stdin=its.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd="/", env=environment, start_new_session=True,
            ) as process:  # fmt: skip
                its.close()
                try:
                    words = f"hold {self.id} {self._lease_s:g}\n".encode()
                    socket.send_fds(ours, [words], [self.listener.fileno()])
                    if holding.told(ours)[0] != ["held"]:
                        raise Unavailable("What keeps the page's port cannot be started.", next="See core.log.")
                finally:
                    process.kill()  # it is long gone if all went well
        except OSError as error:
            ours.close()
            raise Unavailable(f"What keeps the page's port cannot be started: {error}", next="See core.log.") from None
        except BaseException:
            ours.close()
            raise
        return ours


async def open_origin(home: Home, setting: Web, lease_s: float) -> Origin | None:
    """The origin that an earlier core left, else a new one; None where the settings, or the machine, allow none."""
    place = str(home.socket(holding.HOLDER))
    if (kept := await to_thread.run_sync(_taken, home, setting, lease_s, place)) is not None:
        return kept
    if not setting.enabled or (listener := listen_tcp(home, setting)) is None:
        return None
    return Origin(home, listener, secrets.token_hex(16), lease_s)


def _taken(home: Home, setting: Web, lease_s: float, place: str) -> Origin | None:
    """What the holder at `place` has; None, and it has ended, if that is not what the settings want."""
    if (line := holding.called(place)) is None:
        return None
    with ExitStack() as unless_it_fits:
        unless_it_fits.callback(line.close)
        unless_it_fits.callback(holding.bid_end, line)
        if not setting.enabled:
            return None
        with suppress(OSError):
            line.sendall(f"take {lease_s:g}\n".encode())
        words, came = holding.told(line)
        if not words or not came:
            return None
        listener = socket.socket(_family(setting), socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=came[0])
        unless_it_fits.callback(listener.close)
        host, port = listener.getsockname()[:2]
        if host != setting.host or setting.port not in (0, port):
            return None
        listener.setblocking(False)
        (home.path / PORT).write_text(f"{port}\n")
        unless_it_fits.pop_all()
        return Origin(home, listener, words[0], lease_s, line)


def listen_tcp(home: Home, setting: Web) -> socket.socket | None:
    """A listening socket on loopback: at the port of the settings, else at one that it did not have before.

    None, and a warning, where none can be had: the lab works without its page.
    """
    place = home.path / PORT
    before = place.read_text().strip() if place.exists() else ""
    some = (each for each in secrets.SystemRandom().sample(USUAL, TRIES) if str(each) != before)
    for port in (setting.port, *some, 0) if setting.port else (*some, 0):
        # asyncio turns Nagle's algorithm off for what says that it is TCP, and 40 ms are added where it does not
        listener = socket.socket(_family(setting), socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart, not beside another
            listener.bind((setting.host, port))
            listener.listen(WAITING)
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                logger.warning("no page: its address cannot be had", host=setting.host, reason=error.strerror)
                return None
            if port == setting.port:
                logger.warning("the page's port cannot be had: it moves", port=port, reason=error.strerror)
            continue
        listener.setblocking(False)
        place.write_text(f"{listener.getsockname()[1]}\n")
        return listener
    return None


def _family(setting: Web) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(setting.host).version == 6 else socket.AF_INET
