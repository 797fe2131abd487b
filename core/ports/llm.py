"""The llm port: Fiedler with one caller's permissions and budget."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeVar

from core.fiedler.fiedler import Fiedler
from core.fiedler.ledger import Caller
from core.fiedler.money import picodollars
from core.policy.acts import Act
from core.policy.capabilities import Identity, may_use
from core.ports.acting import permitted
from core.ports.services import Allowance, Services
from core.ports.watching import watching, who
from core.redaction.entries import redact_proto
from core.redaction.refusal import SecretSeen
from core.rogers.entry import Entry
from protos.errors import Denied, Exhausted
from protos.llm import Llm
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, CostsReply, EmbedReply, EmbedRequest, Model

PREVIEW_CHARACTERS = 4000  # of a request, for the person who is asked
Asked = TypeVar("Asked", CompleteRequest, EmbedRequest)
LLM_BYTES = 4096  # about what one request to a model takes in the journal beside its answer


@dataclass
class LocalLlm(Llm):
    """Fiedler with one caller's permissions and budget."""

    services: Services
    identity: Identity
    allowance: Allowance

    async def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        fiedler = self._fiedler(request.model)
        request = self._without_secrets(request)
        caller = await self._caller(fiedler, request)
        async with aclosing(fiedler.complete(request, caller)) as events:  # type: ignore[type-var]
            async for each in events:
                yield each

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        fiedler = self._fiedler(request.model)
        request = self._without_secrets(request)
        return await fiedler.embed(request, await self._caller(fiedler, request))

    async def models(self) -> Sequence[Model]:
        ports = self.identity.ports
        everything = "llm" in ports or "llm:*" in ports
        return [each for each in self._any().models() if everything or f"llm:{each.alias}" in ports]

    async def costs(self, by: str = "model", *, since: float = 0.0) -> CostsReply:
        fiedler = self._any()
        caller = await self._caller(fiedler)
        return await fiedler.ledger.report(by, caller, since=since)

    def _without_secrets(self, request: Asked) -> Asked:
        """The request as it may go to a model.

        Raises:
            Denied: rule *secret*: a run has a decoy or the real value of a secret in it.
        """
        redactor = self.services.redactor
        hits = redactor.scan(request.SerializeToString()) if not redactor.is_empty else []
        if not hits:
            return request
        place = f"a prompt for {request.model or 'the default model'}"
        me = who(self.identity)
        if me.guest and any(each.certain for each in hits):
            with watching(self.services, self.identity, place):
                raise SecretSeen(hits)
        self.services.canaries.seen(me, place, hits)
        clean = type(request).FromString(request.SerializeToString())
        redact_proto(redactor, clean)
        return clean

    def _any(self) -> Fiedler:
        """
        Raises:
            Denied: the manifest asks for no model at all.
        """
        if not any(each.partition(":")[0] == "llm" for each in self.identity.ports):
            may_use(self.identity, "llm")
        if self.services.fiedler is None:
            raise Denied("There are no models here.", next="Serve the MAD in a lab that has some.")
        return self.services.fiedler

    def _fiedler(self, alias: str) -> Fiedler:
        """
        Raises:
            Denied: the manifest does not ask for this model.
            Exhausted: the run has said so much that no more acts of it are journalled.
        """
        fiedler = self._any()
        if "llm" not in self.identity.ports:
            may_use(self.identity, f"llm:{(alias or fiedler.repertoire.default)[:64]}")
        if not self.allowance.take_said(LLM_BYTES):
            raise Exhausted("The run has said all it may, and calls of models count.", next="Raise budget.bytes_said.")
        return fiedler

    async def _caller(self, fiedler: Fiedler, request: CompleteRequest | EmbedRequest | None = None) -> Caller:
        """Who asks. A run has an account of its own, whose caps its manifest names; a resident draws from the day.

        Raises:
            Denied: a rule or a person forbids the request.
        """
        me = self.identity
        uses = await self._decided(fiedler, request) if request is not None else ()
        if not me.run:
            return Caller(me.principal, me.participant, me.conversation, also=uses)
        account = f"run:{me.run}"
        await open_purse(self.services, me)
        return Caller(me.principal, me.participant, me.conversation, me.run, account, also=uses)

    async def _decided(self, fiedler: Fiedler, request: CompleteRequest | EmbedRequest) -> tuple[Entry, ...]:
        """What of approvals is used up with the first attempt, which Fiedler journals himself."""
        alias = request.model or fiedler.repertoire.default
        labels = await self.services.taints.of(self.identity)  # a rule may ask because of them
        act = Act("llm.complete", self.identity.principals, alias, taint=labels)
        if self.services.policy.decide(act).verdict == "ask":  # who approves a request approves what it says
            said = type(request)()
            said.ParseFromString(request.SerializeToString())
            said.ClearField("id")
            content = said.SerializeToString(deterministic=True)
            preview = str(said)[:PREVIEW_CHARACTERS]
            act = replace(act, details={"digest": f"sha256:{sha256(content).hexdigest()}", "begins": preview})
        return (await permitted(self.services, self.identity, act)).uses


async def open_purse(services: Services, identity: Identity) -> None:
    """Opens the account of a run, once; what its children spend is spent from it, too."""
    if services.fiedler is None:
        return
    purse = identity.purse
    await services.fiedler.ledger.open_once(
        f"run:{identity.run}",
        parent=purse.under,
        cap_usd=None if purse.usd is None else picodollars(purse.usd),
        cap_tokens=purse.tokens,
    )
