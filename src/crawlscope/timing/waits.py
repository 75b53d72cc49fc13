"""Waiting for a turn is no part of the work: it is measured as an operation of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from crawlscope.timing.context import TimingContext


@dataclass
class _Wait:
    seconds: float = 0.0


_wait: ContextVar[_Wait | None] = ContextVar("crawlscope_timing_wait", default=None)


def note_wait(seconds: float) -> None:
    """Whatever `waits_apart` is around has waited for so long."""
    if wait := _wait.get():
        wait.seconds += seconds


@contextmanager
def waits_apart(whole: TimingContext, operation_type: str, operation_name: str) -> Iterator[None]:
    """What is noted in the block as a wait becomes another operation, and no part of `whole`."""
    wait = _Wait()
    token = _wait.set(wait)
    try:
        yield
    finally:
        _wait.reset(token)
        whole.set_apart(wait.seconds, operation_type, operation_name)
