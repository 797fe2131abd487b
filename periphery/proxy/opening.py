"""Opens the proxy in a sandbox, and tells programs how to find it."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import create_task_group, create_tcp_listener
from anyio.abc import ByteStream, SocketAttribute

from periphery.proxy.authority import Authority
from periphery.proxy.serving import Conversation
from protos.web import Web

TRUST = (  # what the programs of this world read to learn whom to trust
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"),
    *("NODE_EXTRA_CA_CERTS", "npm_config_cafile", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE"),
)
LOOPBACK = "localhost,127.0.0.1,::1"


@dataclass
class Proxy:
    """An open proxy."""

    address: str  # "127.0.0.1:PORT"
    directory: Path
    _authority: list[Authority] = field(default_factory=list)

    def authority(self) -> Authority:
        """Whom programs have to trust; made when first asked for."""
        if not self._authority:
            self._authority.append(Authority(self.directory))
        return self._authority[0]

    def environment(self) -> dict[str, str]:
        """The variables by which programs find the proxy, and trust it."""
        url = f"http://{self.address}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "npm_config_proxy", "npm_config_https_proxy")
        trusted = str(self.authority().file)
        settings = self.directory / "apt.conf"  # apt hears of proxies, and of nobody whom to trust
        settings.write_text(f'Acquire::https::CAInfo "{trusted}";\n')
        apt = {"APT_CONFIG": str(settings)}
        return (
            apt
            | dict.fromkeys(names, url)
            | dict.fromkeys(TRUST, trusted)
            | {"no_proxy": LOOPBACK, "NO_PROXY": LOOPBACK}
        )


@asynccontextmanager
async def open_proxy(web: Web, directory: Path | None = None) -> AsyncIterator[Proxy]:
    """Listens on a free port of loopback until the body ends; what is open then is cut off.

    `directory`: where the certificate goes; without one, a new temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="proxy-", dir=directory) as place:
        async with await create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
            proxy = Proxy(f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}", Path(place))

            async def serve(stream: ByteStream) -> None:
                async with stream:
                    await Conversation(stream, web, proxy.authority).go()

            async with create_task_group() as tasks:
                tasks.start_soon(listener.serve, serve)
                yield proxy
                tasks.cancel_scope.cancel()
