"""What the redactor is told: each version of each secret, once, before its value goes anywhere."""

from typing import Protocol

from core.turing.secret import Secret


class Learner(Protocol):
    """Who must know a value to strike it out wherever something is written: the redactor."""

    def learn(self, name: str, value: bytes) -> None:
        """From now on `value` is written nowhere. A name may have several."""
        ...

    def forget(self, name: str) -> None:
        """What was learnt under `name` may be written again."""
        ...


class Lessons:
    """What `learner` knows already. Without one nothing is told."""

    def __init__(self, learner: Learner | None) -> None:
        self._learner = learner
        self._known: dict[str, set[int]] = {}

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
