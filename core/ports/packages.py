"""The package profile of the web port: listings sifted by age, files checked before a byte of them is handed on.

A file comes from the index once. It goes into Horace as it comes, is compared with the digest that the listing told,
and only then to the sandbox; whoever asks for it again gets it from there. So the cache is the files room, with its
quota, and a package that was changed on its way is an error and never a byte in a sandbox. (apt compares for itself, by
signed lists; of its packages the age is looked at on their way.) What is about to be handed on is
written down first (*brought*), whatever becomes of it: that is the list of what a run has installed.
"""

import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from json import loads
from typing import ClassVar, TypeGuard

from anyio import to_thread

from core.egress.broker import Broker
from core.egress.debian import HEAD_BYTES, Deb, built, modified
from core.egress.packages import ACCEPT, LISTING_BYTES, File, Index, Packages
from core.egress.request import Request, Traffic
from core.horace.store import Horace
from core.rogers.entry import Row
from core.rogers.journal import Journal
from protos.errors import Denied, NotFound, Unavailable
from protos.v1.web_pb2 import Header, ResponseHead

OURS = frozenset({b"accept", b"accept-encoding", b"range", b"if-range", b"if-none-match", b"if-modified-since"})

Pieces = AsyncIterator[ResponseHead | bytes]


@dataclass(frozen=True)
class Installed:
    """A package that a run has fetched."""

    ecosystem: str
    project: str
    version: str
    name: str  # of the file
    digest: str  # "sha256:…"
    uploaded: float  # seconds since the epoch; 0: the index does not tell


class InstalledView:
    """Which packages a run has fetched."""

    name = "installed"
    kinds = frozenset({"act"})
    tables = ("installed",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS installed (
            run TEXT NOT NULL, ecosystem TEXT NOT NULL, project TEXT NOT NULL, version TEXT NOT NULL,
            name TEXT NOT NULL, digest TEXT NOT NULL, uploaded REAL NOT NULL, at REAL NOT NULL,
            PRIMARY KEY (run, digest, name)) STRICT, WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in what a request brought: a step of its own, in older journals a part of its outcome."""
        if b'"package"' not in (row.body or b""):
            return
        body = loads(row.body or b"{}")
        package = body.get("package")
        if body.get("step") in ("brought", "outcome") and "failed" not in body and isinstance(package, dict):
            values = [package[each] for each in ("ecosystem", "project", "version", "name", "digest", "uploaded")]
            db.execute("INSERT OR IGNORE INTO installed VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (row.sender, *values, row.at))


async def installed(journal: Journal, run: str) -> Sequence[Installed]:
    """What a run has fetched, in the order of names."""
    rows = await journal.query(
        "SELECT ecosystem, project, version, name, digest, uploaded FROM installed WHERE run = ? ORDER BY 1, 2, 3, 4",
        (run,),
    )
    return [Installed(*each) for each in rows]


@dataclass
class PackageDesk:
    """Where requests under a rule with `packages = true` are served.

    `take_in` counts what a run has read: what comes from an index as it comes, since it is kept from then on; what was
    here already as it is handed on. `brought` makes durable, as `package`, what is about to be.
    """

    broker: Broker
    horace: Horace
    take_in: Callable[[int], None]
    brought: Callable[..., Awaitable[None]]

    @property
    def _packages(self) -> Packages:
        return self.broker.packages

    def serve(self, request: Request, traffic: Traffic) -> Pieces:
        """The answer to a request for a listing or a listed file.

        Raises:
            Denied: rule *packages*: it is neither.
        """
        if request.method not in ("GET", "HEAD"):
            raise Denied("rule packages: an index is read, nothing else.", next="Use GET.")
        kept = [(name, value) for name, value in request.headers if name.lower() not in OURS]
        request = replace(request, headers=[*kept, (b"Accept-Encoding", b"identity")])
        url = str(request.url)
        file = self._packages.file(request.owner, url, time.time())
        if file is not None:
            return self._file(request, file, traffic)
        index = self._packages.index(url)
        if index is not None:
            return self._listing(request, index, traffic)
        deb = self._packages.deb(url)
        if deb is not None:
            return self._deb(request, deb, traffic)
        if self._packages.is_list(url):
            return self._fetched(request, traffic)  # signed: apt itself sees whether it is what it should be
        raise Denied(
            "rule packages: that is neither a listing of a configured index nor a file that one has listed"
            " and that is old enough.",
            next="Ask for the listing first; [egress.packages] names the indexes and the age.",
        )

    async def _listing(self, request: Request, index: Index, traffic: Traffic) -> Pieces:
        accept = ACCEPT[index.ecosystem]
        request = replace(request, headers=[*request.headers, (b"Accept", accept)])
        async with aclosing(self._fetched(request, traffic)) as pieces:  # type: ignore[type-var]
            head = await anext(pieces)
            if not _brings(head, request):
                async for piece in _behind(head, pieces):
                    yield piece
                return
            async with self._packages.turns:
                sifted = await self._sifted(request.owner, index, pieces)
        yield _found(len(sifted), accept)
        yield sifted

    async def _sifted(self, owner: str, index: Index, pieces: Pieces) -> bytes:
        listing = bytearray()
        async for piece in pieces:
            listing += piece if isinstance(piece, bytes) else b""
            if len(listing) > LISTING_BYTES:
                raise Unavailable(f"The listing of {index.project} has more than {LISTING_BYTES} bytes.")
        sifted, files = await to_thread.run_sync(self._packages.sifted, index, bytes(listing), time.time())
        self._packages.learn(owner, files)
        return sifted

    async def _file(self, request: Request, file: File, traffic: Traffic) -> Pieces:
        size = await self._size(self._packages.stored(file))
        was_here = size is not None
        if size is None:
            async with aclosing(self._fetched(request, traffic)) as pieces:  # type: ignore[type-var]
                head = await anext(pieces)
                if not _brings(head, request):
                    async for piece in _behind(head, pieces):
                        yield piece
                    return
                blob = await self.horace.put(_checked(file, pieces), name=file.name)
            self._packages.keep(file, blob.digest)
            size = blob.size
        digest = self._packages.stored(file)
        if file.is_package and request.method == "GET":
            about = Installed(file.ecosystem, file.project, file.version, file.name, digest, file.uploaded)
            await self.brought(package=asdict(about))
        async for piece in self._kept(request, digest, size, is_paid=not was_here):
            yield piece

    async def _deb(self, request: Request, deb: Deb, traffic: Traffic) -> Pieces:
        """
        Raises:
            Denied: rule *packages*: it is too young.
        """
        url, packages = str(request.url), self._packages
        digest, uploaded = packages.stored_deb(url)
        size = await self._size(digest)
        was_here = size is not None
        if size is None:
            async with aclosing(self._fetched(request, traffic)) as pieces:  # type: ignore[type-var]
                head = await anext(pieces)
                if not _brings(head, request):
                    async for piece in _behind(head, pieces):
                        yield piece
                    return
                said = (each.value for each in head.headers if each.name.lower() == "last-modified")
                uploaded = modified(next(said, b""))
                packages.check_age(deb, uploaded, time.time())  # before more of it is fetched

                def check(begin: bytes) -> None:
                    nonlocal uploaded
                    uploaded = max(uploaded, built(begin)) if uploaded else 0.0
                    packages.check_age(deb, uploaded, time.time())

                blob = await self.horace.put(_begun(pieces, check), name=deb.name)
            digest, size = blob.digest, blob.size
            packages.keep_deb(url, digest, uploaded)
        packages.check_age(deb, uploaded, time.time())
        if request.method == "GET":
            about = Installed("apt", deb.project, deb.version, deb.name, digest, uploaded)
            await self.brought(package=asdict(about))
        async for piece in self._kept(request, digest, size, is_paid=not was_here):
            yield piece

    async def _kept(self, request: Request, digest: str, size: int, *, is_paid: bool) -> Pieces:
        """A file that is here."""
        yield _found(size, b"application/octet-stream")
        if request.method != "HEAD":
            async with aclosing(self.horace.get(digest)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    if not is_paid:
                        self.take_in(len(chunk))
                    yield chunk

    async def _fetched(self, request: Request, traffic: Traffic) -> Pieces:
        async with aclosing(self.broker.fetch(request, _nothing(), traffic)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if isinstance(piece, bytes):
                    self.take_in(len(piece))
                yield piece

    async def _size(self, digest: str) -> int | None:
        """Of a file that is here already."""
        try:
            return (await self.horace.stat(digest)).size if digest else None
        except NotFound:
            return None


def _brings(head: ResponseHead | bytes, request: Request) -> TypeGuard[ResponseHead]:
    """Whether an answer that begins so brings what was asked for; else it is handed on as it is."""
    return isinstance(head, ResponseHead) and head.status == 200 and request.method != "HEAD"


async def _behind(head: ResponseHead | bytes, pieces: Pieces) -> Pieces:
    """An answer whose head was taken off already."""
    yield head
    async for piece in pieces:
        yield piece


async def _begun(pieces: Pieces, check: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    """What comes, once `check` has seen how it begins."""
    begin: bytes | None = b""
    async for piece in pieces:
        if not isinstance(piece, bytes):
            continue
        if begin is not None:
            begin += piece
            if len(begin) < HEAD_BYTES:
                continue
            check(begin[:HEAD_BYTES])
            piece, begin = begin, None
        yield piece
    if begin is not None:
        check(begin)


async def _checked(file: File, pieces: Pieces) -> AsyncIterator[bytes]:
    """
    Raises:
        Unavailable: it is not the file that was listed. Whoever stores it keeps nothing of it.
    """
    digest = hashlib.new(file.algorithm)
    async for piece in pieces:
        if isinstance(piece, bytes):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != file.digest:
        raise Unavailable(
            f"{file.name} is not the file that the index has listed: its {file.algorithm} differs.",
            next="Tell whoever runs the index.",
        )


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


def _found(size: int, media_type: bytes) -> ResponseHead:
    length = Header(name="Content-Length", value=b"%d" % size)
    return ResponseHead(status=200, reason="OK", headers=[Header(name="Content-Type", value=media_type), length])
