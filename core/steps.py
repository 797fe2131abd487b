"""Bounds how long a coroutine may keep the thread to itself.

An event loop is shared by good manners: whoever does not await keeps everybody waiting. A resident of the core is run
here one step at a time, a step being what it does between two awaits. An interval timer is armed before each step and
disarmed after it; when it fires, its signal handler raises `Blocked` right where the resident is. That ends
`time.sleep`, a busy loop, a regular expression that will not end: whatever Python can interrupt. It cannot end native
code that never returns, nor does it see tasks the resident starts beside itself; such a resident belongs in a process
of its own (`home = "process"`).

Costs two system calls a step. Only the main thread gets signals, so only there is anything bounded.
"""

import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from types import coroutine as generator_coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")


class Blocked(BaseException):
    """A resident kept the thread. No `Exception`: a handler that catches everything must not swallow it."""


class _Timer:
    """The process has one interval timer; steps never nest."""

    armed = False

    @classmethod
    def fire(cls, number: int, frame: FrameType | None) -> None:
        if cls.armed:  # a signal that was on its way when the step ended says nothing
            cls.armed = False
            raise Blocked


@generator_coroutine
def in_steps(work: Coroutine[Any, Any, Value], limit_s: float) -> Generator[Any, Any, Value]:
    """Awaits `work`, no step of which may last longer than `limit_s` seconds.

    Raises:
        Blocked: one did, and did not catch it.
    """
    if threading.current_thread() is not threading.main_thread():
        return (yield from work.__await__())
    signal.signal(signal.SIGALRM, _Timer.fire)
    resume: Callable[[Any], Any] = work.send
    argument: Any = None
    while True:
        _Timer.armed = True
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            awaited = resume(argument)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            _Timer.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            argument, resume = (yield awaited), work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001  whatever it is, it is the coroutine's to handle
            argument, resume = error, work.throw
