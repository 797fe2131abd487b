"""The model: llama.cpp in this process, asked by calls, never over a port.

The library answers in the thread that asks it, piece by piece, to a function that may say "enough". So each request
has a thread, as many as are answered side by side, and a request that nobody waits for ends at its next piece; while a
prompt is read there is one every few seconds, which only tells how far it is.

What the library would also do is left off: no port that answers without a key, no page, no cache of prompts beside the
model's own, no words about prompts in its log.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, from_thread, get_cancelled_exc_class, to_thread

from periphery.llama.asking import Asking
from periphery.llama.reading import Reading
from protos.errors import InvalidArgument
from protos.v1.llm_pb2 import CompleteRequest, Serving

if TYPE_CHECKING:
    from protos.llm import Say

BATCH = 256  # tokens of a prompt that are read at once: a wish to stop is heard after each
DEFAULT_CONTEXT, DEFAULT_AT_ONCE = 4096, 1
QUOTAS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")  # of the two kinds of cgroups


@dataclass(frozen=True)
class About:
    """What stands beside the weights."""

    name: str
    context_tokens: int
    at_once: int

    @classmethod
    def beside(cls, folder: Path) -> "About":
        """What is told of the weights in `folder`, or careful guesses."""
        try:
            told = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            told = {}
        return cls(
            name=str(told.get("name", "a local model")),
            context_tokens=int(told.get("context_tokens", DEFAULT_CONTEXT)),
            at_once=int(told.get("at_once", DEFAULT_AT_ONCE)),
        )


class Llama:
    """A model that is served to the lab (`protos.llm.ServedModel`)."""

    is_model = True

    def __init__(self) -> None:
        self._server: Any = None
        self._threads = CapacityLimiter(1)

    async def load(self) -> Serving:
        folder = Path(os.environ.get("MADLAB_BUNDLES", "/bundle")) / "model"
        about = About.beside(folder)
        self._threads = CapacityLimiter(about.at_once)
        self._server = await to_thread.run_sync(_load, folder / "model.gguf", about)
        return Serving(model=about.name, context_tokens=about.context_tokens, at_once=about.at_once)

    async def answer(self, request: CompleteRequest, say: "Say") -> None:
        asking = Asking.of(request)
        try:
            reading = await self._ask(asking, say)
        except ValueError:  # a schema that cannot steer the writing; what comes is checked anyway
            if not asking.loosened:
                raise InvalidArgument("The model cannot be held to this schema. Make it simpler.") from None
            reading = await self._ask(asking.loosened, say)
        for event in reading.end():
            await say(event)

    async def _ask(self, asking: Asking, say: "Say") -> Reading:
        """
        Raises:
            InvalidArgument: the model does not take the request.
            ValueError: the library does not understand the schema.
        """
        reading = Reading(asking.choice)

        def hear(piece: Mapping[str, Any]) -> bool:
            """Whether that is enough."""
            try:
                from_thread.check_cancelled()
                for event in reading.take(piece):
                    from_thread.run(say, event)
            except get_cancelled_exc_class():
                return True
            return reading.trouble is not None

        await to_thread.run_sync(self._server.handle_chat_completions, asking.body, hear, limiter=self._threads)
        if reading.trouble is not None:
            raise reading.trouble
        return reading


def _load(path: Path, about: About) -> Any:
    """The library with the weights in it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the library loads
    xllamacpp: Any = import_module("xllamacpp")  # in the image only
    threads = processors()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {about.name} if isinstance(params.model_alias, set) else about.name
    params.n_ctx = about.context_tokens
    params.n_parallel = about.at_once
    params.kv_unified = True  # one long request may have the context that two short ones share
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.api_keys = [secrets.token_hex(32)]  # of the port that it opens all the same, and nobody knows
    params.verbosity = 0
    return xllamacpp.Server(params)


def processors() -> int:
    """How many there are for this sandbox."""
    here = len(os.sched_getaffinity(0))
    for place in QUOTAS:
        try:
            told = Path(place).read_text(encoding="utf-8").split()
            quota, period = int(told[0]), int(told[1]) if len(told) > 1 else 100_000
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0:
            return max(1, min(here, round(quota / period)))
    return here
