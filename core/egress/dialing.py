"""From a request to an open connection: the name resolved, every address judged, TLS with the host's own certificate.

The address that was judged is the one that is connected to. There is no second look at the name.
"""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import anyio
from anyio import fail_after, move_on_after
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from core.egress.addresses import Address, is_within, special
from core.egress.connection import BROKEN, Connection
from core.egress.limits import Limits
from core.egress.names import Names, not_reached
from core.egress.request import Request, Traffic
from core.egress.urls import Url
from core.egress.wire import open_wire
from protos.errors import Denied, InvalidArgument, Unavailable

ADDRESSES = 4  # of one host that are tried


class Dialer:
    """Opens connections. `ca_file` holds authorities of an intranet, beside the system's."""

    def __init__(self, names: Names, ca_file: Path | None) -> None:
        """
        Raises:
            InvalidArgument: the file holds no certificates.
        """
        self._names, self._ca_file = names, ca_file
        if ca_file is not None:
            trusting(ca_file)  # a mistake is told at the start

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return trusting(self._ca_file)

    async def open(self, request: Request, traffic: Traffic) -> Connection:
        """A new connection to an address that was judged.

        Raises:
            Denied: rule *address*; why is in `traffic`, for the operator.
            Exhausted: too many names are asked for.
            Unavailable: nobody is there.
        """
        url, limits = request.url, request.limits
        try:
            with fail_after(limits.connect_s):
                try:
                    addresses = await self._names.find(url.host, request.owner, limits.connect_s)
                except Denied:
                    traffic.why = "nobody knows the name"
                    raise
                if forbidden := [each for each in addresses if not may_reach(each, limits)]:
                    traffic.address = ", ".join(map(str, forbidden))
                    traffic.why = f"the address is {special(forbidden[0])}"
                    raise not_reached(url.host)
                stream, address = await _connect(addresses[:ADDRESSES], url, limits.connect_s)
                return Connection(await self._secured(stream, url), address)
        except TimeoutError:
            raise Unavailable(
                f"There was no connection to {url.authority} within {limits.connect_s:g} s.", next="Try again."
            ) from None

    async def _secured(self, stream: ByteStream, url: Url) -> ByteStream:
        """`stream` with TLS, where the address says so; the certificate must be the host's."""
        if url.scheme == "http":
            return stream
        try:
            return await TLSStream.wrap(stream, hostname=url.host, ssl_context=self._tls, standard_compatible=False)
        except BaseException as error:
            await anyio.aclose_forcefully(stream)
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Unavailable(
                    f"The certificate of {url.authority} is not to be trusted: {error.verify_message[:200]}.",
                    next="An authority of one's own is named by [egress] ca_file.",
                ) from None
            if isinstance(error, (*BROKEN, anyio.EndOfStream)) and not isinstance(error, TimeoutError):
                raise Unavailable(f"There is no TLS at {url.authority}.", next="Try again, or http.") from None
            raise


def may_reach(address: Address, limits: Limits) -> bool:
    """Whether a request with these limits may be sent there."""
    return not special(address) or is_within(address, limits.networks)


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """TLS that trusts what the system trusts, and the authorities of a file.

    Raises:
        InvalidArgument: the file holds none.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidArgument(
                f"[egress] ca_file: {ca_file} holds no certificates: {error.strerror or error}.", next="Mend it."
            ) from None
    return context


async def _connect(addresses: Sequence[Address], url: Url, seconds: float) -> tuple[ByteStream, Address]:
    """To the first of `addresses` that answers."""
    for each in addresses:
        with suppress(OSError), move_on_after(seconds / 2):
            return await open_wire(each, url.port), each
    raise Unavailable(f"Nobody answers at {url.authority}.", next="Try again.")
