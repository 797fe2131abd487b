"""Makes providers by their settings. An SDK is imported when the first of its kind is used: each costs 50 to 75 MB."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from core.fiedler.provider import Provider
from core.fiedler.providers.hosted import HostedProvider, Hosts
from core.fiedler.settings import Provider as Settings
from protos.errors import InvalidArgument


def make_provider(name: str, settings: Settings, hosts: Hosts | None = None) -> AbstractAsyncContextManager[Provider]:
    """A provider, not yet entered. Takes a second the first time: call it in a thread.

    Raises:
        InvalidArgument: its recorded exchanges cannot be read, or it is a local one and nobody keeps workers here.
    """
    if settings.kind == "local":
        if hosts is None:
            raise InvalidArgument(f"providers.{name}: local models are served by a running lab.", next="Use one.")
        return HostedProvider(hosts, idle_s=settings.idle_s)
    transport = None
    wire: str = settings.kind
    if settings.kind == "recorded":
        from core.fiedler.providers.recorded import Replay

        wire = settings.wire
        try:
            transport = Replay.read(settings.directory or Path())
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"providers.{name}.directory: {error}", next="Correct it in madlab.toml.") from None
    if wire == "anthropic":
        from core.fiedler.providers.anthropic import AnthropicProvider

        return AnthropicProvider(settings.address, structured=settings.structured, transport=transport)
    from core.fiedler.providers.openai import OpenAIProvider

    return OpenAIProvider(
        settings.address,
        max_tokens_field=settings.tokens_field,
        stream_usage=settings.stream_usage,
        transport=transport,
    )
