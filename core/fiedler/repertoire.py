"""What there is to play: aliases, the routes they make, and what a request becomes on each leg."""

from collections.abc import Mapping, Sequence

from core.fiedler.keys import Keys
from core.fiedler.money import Bound, bound_of
from core.fiedler.policy import Leg, Policy, Rules
from core.fiedler.providers.hosted import Hosts
from core.fiedler.requests import images_of
from core.fiedler.settings import Model, Orchestra, Provider
from core.fiedler.store import NO_MODEL
from protos.errors import Denied, InvalidArgument, NotFound
from protos.v1 import llm_pb2 as pb


class Repertoire:
    """The models that the operator has set."""

    def __init__(self, orchestra: Orchestra, providers: Mapping[str, Provider], models: Mapping[str, Model]) -> None:
        self.orchestra, self.providers, self.models = orchestra, providers, models

    @property
    def default(self) -> str:
        """The alias that a request without one means; empty where there is no model."""
        chatting = (alias for alias, model in self.models.items() if model.chat)
        return self.orchestra.default or next(chatting, "")

    def find(self, alias: str, *, embeddings: bool = False) -> str:
        """The alias that `alias` means.

        Raises:
            NotFound: there is none.
            InvalidArgument: it is for something else.
        """
        if embeddings and not alias:
            alias = next((name for name, model in self.models.items() if model.embeddings), "")
        alias = alias or self.default
        if not self.models or not alias:
            raise NotFound("The lab has no model for this.", next=NO_MODEL)
        if alias not in self.models:
            known = ", ".join(sorted(self.models))
            raise NotFound(f"There is no model {alias[:64]!r}.", next=f"There are: {known}.")
        model = self.models[alias]
        if not (model.embeddings if embeddings else model.chat):
            what = "embeddings" if embeddings else "conversation"
            raise InvalidArgument(f"{alias} is not set up for {what}.", next="Use another model.")
        return alias

    def route(self, request: pb.CompleteRequest) -> Sequence[Leg]:
        """The model of a request and those fallbacks that can take it.

        Raises:
            NotFound: there is no such model.
            InvalidArgument: it cannot take the request.
        """
        alias = self.find(request.model)
        model = self.models[alias]
        if request.tools and not model.tools:
            raise InvalidArgument(f"{alias} calls no tools.", next="Use a model that does.")
        if any(images_of(request)) and not model.images:
            raise InvalidArgument(f"{alias} takes no pictures.", next="Use a model that does.")
        fallbacks = [each for each in model.fallbacks if self._takes(each, request)]
        return [self.leg(each) for each in (alias, *fallbacks)]

    def leg(self, alias: str) -> Leg:
        """One model of a route."""
        model = self.models[alias]
        return Leg(alias, f"{model.provider}/{model.model}")

    def rules(self, route: Sequence[Leg]) -> Rules:
        """How much patience a request has: as its own model says."""
        first = self.models[route[0].alias]
        return Rules(attempts=first.attempts, hedge_after_s=first.hedge_after_s)

    def bound(self, request: pb.CompleteRequest, alias: str) -> Bound:
        """The worst case of asking `alias`."""
        model = self.models[alias]
        return bound_of(
            request,
            max_tokens=self.max_tokens(request, alias),
            bytes_per_token=model.bytes_per_token,
            image_tokens=model.image_tokens,
        )

    def max_tokens(self, request: pb.CompleteRequest, alias: str) -> int:
        """The most that `alias` may write: what is asked for, and never more than the operator allows."""
        most = self.models[alias].max_tokens
        return min(request.sampling.max_tokens or most, most)

    def with_defaults(self, request: pb.CompleteRequest, alias: str) -> pb.CompleteRequest:
        """`request` with the operator's settings where it names none."""
        model, made = self.models[alias], pb.CompleteRequest()
        made.CopyFrom(request)
        sampling = made.sampling
        if model.temperature is not None and not sampling.HasField("temperature"):
            sampling.temperature = model.temperature
        if model.top_p is not None and not sampling.HasField("top_p"):
            sampling.top_p = model.top_p
        sampling.reasoning_effort = sampling.reasoning_effort or model.reasoning_effort
        return made

    def describe(self, policy: Policy, keys: Keys, now: float, hosts: Hosts | None = None) -> Sequence[pb.Model]:
        """Every alias, the default first."""
        default = self.default
        return [
            self._describe(alias, policy, keys, now, hosts)
            for alias in sorted(self.models, key=lambda each: each != default)
        ]

    def _describe(self, alias: str, policy: Policy, keys: Keys, now: float, hosts: Hosts | None) -> pb.Model:
        model = self.models[alias]
        state, note = "ready", model.note
        if self.providers[model.provider].kind == "local" and hosts is not None:
            state, missing = hosts.state(model.model)
            note = missing or note
        try:
            if keys.find(model.provider) is None and self.providers[model.provider].has_key:
                state = "no key"
        except Denied as error:
            state, note = "no key", f"{error.message} {error.next}"
        breaker = policy.breaker(self.leg(alias).target)
        if state == "ready" and max(breaker.rests_until(), breaker.not_before) > now:
            state, note = "resting", "It failed too often, or asked for a pause."
        return pb.Model(
            alias=alias,
            provider=model.provider,
            model=model.model,
            chat=model.chat,
            tools=model.tools,
            images=model.images,
            embeddings=model.embeddings,
            context_tokens=model.context_tokens,
            max_tokens=model.max_tokens,
            input_usd=float(model.input_usd),
            output_usd=float(model.output_usd),
            state=state,
            note=note,
            is_default=alias == self.default,
            fallbacks=model.fallbacks,
            small=model.small,
        )

    def _takes(self, alias: str, request: pb.CompleteRequest) -> bool:
        model = self.models[alias]
        return model.chat and (model.tools or not request.tools) and (model.images or not any(images_of(request)))
