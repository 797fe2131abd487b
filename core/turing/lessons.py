"""What the redactor is told: every value that can be read, when the vault is unlocked or the value is kept.

All of them, and not only those that were used: what is in the vault may reach a message, a prompt or a log in other
ways than through the vault, and has no business there either.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from core.turing.secret import Secret


class Found(Protocol):
    """A value that was found."""

    @property
    def name(self) -> str:
        """The secret's."""
        ...


class Learner(Protocol):
    """Who must know a value to strike it out wherever something is written: the redactor."""

    def learn(self, name: str, value: bytes) -> None:
        """From now on `value` is written nowhere. A name may have several."""
        ...

    def learn_all(self, named: Iterable[tuple[str, bytes]]) -> None:
        """`learn` for many at once."""
        ...

    def scan(self, data: bytes) -> Sequence[Found]:
        """What of all that was learnt is in `data`; the first look after learning takes as long as indexing does."""
        ...

    def forget(self, name: str) -> None:
        """What was learnt under `name` may be written again."""
        ...


class Lessons:
    """What `learner` knows already. Without one nothing is told."""

    def __init__(self, learner: Learner | None) -> None:
        self._learner = learner
        self._known: dict[str, set[int]] = {}

    def found(self, text: str) -> str | None:
        """The name of a secret whose value is in `text`: whatever is written down of it would be something else."""
        hits = self._learner.scan(text.encode("utf-8", "surrogatepass")) if self._learner is not None else ()
        return hits[0].name if hits else None

    def learn_all(self, secrets: Iterable[Secret]) -> None:
        """What is there, before the vault is open; what comes, before it is kept. Takes its time: use a thread."""
        if self._learner is None:
            return
        found = list(secrets)
        self._learner.learn_all((each.name, each.reveal()) for each in found)
        for each in found:
            self._known.setdefault(each.name, set()).add(each.version)
            each.wipe()
        self._learner.scan(b"")  # here, so that whoever writes next need not wait

    def learn(self, secret: Secret) -> Secret:
        """The same, after the learner knows it."""
        known = self._known.setdefault(secret.name, set())
        if self._learner is not None and secret.version not in known:
            self._learner.learn(secret.name, secret.reveal())
            known.add(secret.version)
        return secret

    def forget(self, name: str) -> None:
        """A secret was removed."""
        self._known.pop(name, None)
        if self._learner is not None:
            self._learner.forget(name)
