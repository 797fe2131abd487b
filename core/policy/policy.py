"""The one function that decides: for residents, workers and outside doors alike, in plain code, and without waiting.

    act ─▶ is its address in the one form?  no: deny "address"
        ─▶ the first rule that matches      none: deny "default"
        ─▶ taint: does it leave the lab with something its rule does not carry?  what [taint] says of the labels
        ─▶ allow | ask | deny

`Policy` is compiled once. An act is looked up, not searched for: rules lie by kind, then by principal, then by place (a
host, its domains, "*"; a MAD, its tools), then by the path they begin with. So a thousand rules cost about what ten do.
Each rule lies in every drawer it belongs to, under its position in the files; of what the drawers hold, the lowest
position that matches wins, which is "the first that matches decides".

Nothing here reads a clock, a file or the journal, and no model is ever asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from core.policy.acts import Act, Decision, Limits, Verdict
from core.policy.rules import BUILT_IN, OURS, PolicyFile, Rule, read_policy
from core.policy.targets import ANY_PORT, Address, address_of, host_pattern, host_places, port_fits
from protos.errors import InvalidArgument

STRICTNESS: Mapping[Verdict, int] = {"allow": 0, "ask": 1, "deny": 2}
UNKNOWN_LABEL: Verdict = "ask"  # of a label that no [taint] names

NOT_ONE_FORM = Decision(
    "deny",
    "address",
    "the address is not written in the one form: http or https, the host in lower case, no user, printable ASCII",
    "Write it so; international names in their xn-- form, everything else percent-encoded.",
)
DEFAULT = Decision("deny", "default", "no rule allows it", "A rule of the lab's policy would have to allow it.")


@dataclass(slots=True)
class _Compiled:
    """A rule as it is matched."""

    position: int
    schemes: frozenset[str]
    methods: frozenset[str]
    effects: frozenset[str]
    taint: frozenset[str]
    carries: frozenset[str]
    opens: bool  # it allows: where a path is not clear, it must not think that it is its own
    decision: Decision

    def matches(self, act: Act, address: Address | None, port: int) -> bool:
        if address is not None and not port_fits(port, address):
            return False
        if self.methods and act.details.get("method") not in self.methods:
            return False
        if self.effects and act.details.get("effects") not in self.effects:
            return False
        if self.taint and not self.taint & act.taint:
            return False
        return not self.schemes or (address is not None and address.scheme in self.schemes)


@dataclass(slots=True)
class _Drawer:
    """The rules for one kind, principal and place, in the order of the files, by the path they want; "" is any."""

    by_path: dict[str, list[tuple[int, _Compiled]]] = field(default_factory=dict)  # the port wanted, and the rule
    depth: int = 0  # segments of the longest path
    strict: list[tuple[int, _Compiled]] = field(default_factory=list)  # those with a path that forbid or ask

    def put(self, path: str, port: int, rule: _Compiled) -> None:
        self.by_path.setdefault(path, []).append((port, rule))
        if path and not rule.opens:
            self.strict.append((port, rule))
        self.depth = max(self.depth, path.count("/"))

    def candidates(self, address: Address | None) -> Iterator[Sequence[tuple[int, _Compiled]]]:
        """What may match, by the path alone, each list in the order of the files. Where servers may read the path in
        several ways, each rule that forbids or asks believes that it is meant, and none that allows does."""
        yield self.by_path.get("", ())
        if address is None or not self.depth:
            return
        if not address.is_clear:
            yield self.strict
            return
        end = 0
        for _ in range(self.depth):
            end = address.path.find("/", end + 1)
            yield self.by_path.get(address.path if end < 0 else address.path[:end], ())
            if end < 0:
                return


_Places = dict[str, _Drawer]


class Policy:
    """All rules of one lab. The files in their order, the built-in one last.

    Raises:
        InvalidArgument: two rules have one name.
    """

    def __init__(self, files: Sequence[PolicyFile]) -> None:
        self.files = tuple(files)
        self.rules: tuple[Rule, ...] = tuple(rule for file in files for rule in file.table.rules)
        self._compiled: dict[str, dict[str, _Places]] = {}
        self._depth = 0  # labels of the longest domain that a rule names
        self._of_taint: dict[str, Verdict] = {}
        for file in files:
            for label, verdict in file.table.taint.model_dump(exclude_none=True).items():
                self._of_taint.setdefault(label, verdict)
        self._file_of: dict[str, str] = {}
        for file in files:
            for rule in file.table.rules:
                taken = "madlab itself" if rule.name in OURS else self._file_of.get(rule.name)
                if taken:
                    raise InvalidArgument(
                        f"{file.name}: rule {rule.name}: name: {taken} has a rule of that name",
                        next="give it another one",
                    )
                self._file_of[rule.name] = file.name
        for position, rule in enumerate(self.rules):
            self._file(position, rule)

    @property
    def digest(self) -> str:
        """Of what the files say."""
        said = sha256()
        for each in self.files:
            said.update(len(each.text.encode()).to_bytes(8, "big") + each.text.encode())
        return f"sha256:{said.hexdigest()}"

    @property
    def taint(self) -> Mapping[str, Verdict]:
        """What each label needs."""
        return self._of_taint

    def file_of(self, rule: str) -> str:
        """In which file a rule stands; empty if in none."""
        return self._file_of.get(rule, "")

    def hosts_of(self, rule: str) -> Sequence[str]:
        """The patterns of hosts that a rule names."""
        return next((each.hosts for each in self.rules if each.name == rule), ())

    def decide(self, act: Act) -> Decision:
        """What the rules say of `act`. Pure, and under 50 µs with a thousand rules."""
        address: Address | None = None
        if act.kind == "web.fetch":
            address = address_of(act.target)
            if address is None:
                return NOT_ONE_FORM
        best: _Compiled | None = None
        by_principal = self._compiled.get(act.kind, {})
        places = host_places(address.host, self._depth) if address is not None else _places(act)
        for principal in _names(act.principals):
            by_place = by_principal.get(principal)
            if by_place is None:
                continue
            for place in places:
                drawer = by_place.get(place)
                if drawer is None:
                    continue
                for rules in drawer.candidates(address):
                    for port, rule in rules:
                        if best is not None and rule.position >= best.position:
                            break
                        if rule.matches(act, address, port):
                            best = rule
                            break
        if best is None:
            return DEFAULT
        return self._after_taint(act, best)

    def _after_taint(self, act: Act, rule: _Compiled) -> Decision:
        decision = rule.decision
        if decision.verdict == "deny" or not act.taint or not act.leaves:
            return decision
        labels = act.taint - rule.carries
        strictest: Verdict = max(
            (self._of_taint.get(each, UNKNOWN_LABEL) for each in labels), key=STRICTNESS.__getitem__, default="allow"
        )
        if STRICTNESS[strictest] <= STRICTNESS[decision.verdict]:
            return decision
        where = " and ".join(sorted(each for each in labels if self._of_taint.get(each, UNKNOWN_LABEL) != "allow"))
        return Decision(
            strictest,
            "taint",
            f"rule {decision.rule} allows it, but what it takes out of the lab comes from: {where}",
            f"A person approves it, or rule {decision.rule} says that it carries {where}.",
            decision.limits,
        )

    def _file(self, position: int, rule: Rule) -> None:
        """Puts a rule into every drawer it belongs to."""
        compiled = _Compiled(
            position,
            frozenset(rule.schemes),
            frozenset(rule.methods),
            frozenset(rule.effects),
            frozenset(rule.taint),
            frozenset(rule.carries),
            rule.verdict == "allow",
            Decision(rule.verdict, rule.name, _reason(rule), _next(rule), limits_of(rule)),
        )
        for kind in rule.kinds:
            for principal in set(rule.principals):
                places = self._compiled.setdefault(kind, {}).setdefault(principal, {})
                if kind == "web.fetch":
                    for each in dict.fromkeys(host_pattern(host) for host in rule.hosts):
                        self._depth = max(self._depth, each.host.count("."))
                        for path in dict.fromkeys(rule.paths or ("",)):
                            places.setdefault(each.host, _Drawer()).put(path, each.port, compiled)
                else:
                    for target in dict.fromkeys(rule.targets or ("*",)):
                        places.setdefault(target, _Drawer()).put("", ANY_PORT, compiled)


def load_policy(paths: Sequence[Path]) -> Policy:
    """The rules of the operator's files, then the built-in ones.

    Raises:
        InvalidArgument: a file cannot be read, or says something no policy says.
    """
    return Policy([*(read_policy(each) for each in paths), read_policy(BUILT_IN)])


def limits_of(rule: Rule) -> Limits:
    """The limits that a rule sets."""
    return Limits(**rule.limits.model_dump())


def _names(principals: Sequence[str]) -> list[str]:
    """Every way a rule may name who acts: "run:ID", "run:*", "mad:NAME", "mad:*", "*"."""
    names = ["*"]
    for each in principals:
        names.append(each)
        family, colon, _ = each.partition(":")
        if colon:
            names.append(f"{family}:*")
    return names


def _places(act: Act) -> list[str]:
    """Every way a rule may name what an act is for, but a request's hosts."""
    if act.kind == "bus.call":
        return [act.target, f"{act.target.partition('.')[0]}.*", "*"]
    return [act.target, "*"]


def _reason(rule: Rule) -> str:
    told: Mapping[Verdict, str] = {
        "allow": "the policy allows it",
        "ask": "the policy has a person look at it first",
        "deny": "the policy forbids it",
    }
    return rule.reason or told[rule.verdict]


def _next(rule: Rule) -> str:
    return "" if rule.verdict == "allow" else f"The operator may change rule {rule.name} of the lab's policy."
