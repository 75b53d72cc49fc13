"""`TimingContext`: what an operation took, whose it was and how it ended, at next to no cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter, time
from types import TracebackType
from typing import Any, Self

from crawlscope.core.histogram import whole_ticks
from crawlscope.timing import standalone
from crawlscope.timing.telemetry import meters, traces


@dataclass(frozen=True, slots=True)
class Scope:
    """The owner of the work in progress: set once per page or request, read by each `TimingContext`."""

    crawl_id: str | None = None
    job_id: str | None = None
    request_id: str | None = None
    document_url: str | None = None
    collect: "Callable[[TimingContext], None] | None" = None
    """Gets the measurements; without it they go to the buffer of the process."""


_scope: ContextVar[Scope] = ContextVar("crawlscope_timing_scope", default=Scope())  # noqa: B039 - frozen


@contextmanager
def scope(
    crawl_id: str | None = None,
    job_id: str | None = None,
    request_id: str | None = None,
    document_url: str | None = None,
    collect: "Callable[[TimingContext], None] | None" = None,
) -> Iterator[None]:
    """Measurements in the block belong to these ids; those not given come from the surrounding scope."""
    outer = _scope.get()
    token = _scope.set(
        Scope(
            crawl_id=crawl_id or outer.crawl_id,
            job_id=job_id or outer.job_id,
            request_id=request_id or outer.request_id,
            document_url=document_url or outer.document_url,
            collect=collect or outer.collect,
        )
    )
    try:
        yield
    finally:
        _scope.reset(token)


class TimingContext:
    """Measures the block it is put around, with `with` or `async with`.

    `duration_ms` is wall time by the monotonic clock and grows while the block runs. A block that
    raises is recorded with `success` False and the error's text; the error propagates. `metadata` may be
    added to inside the block. Ids that are not given come from the surrounding `scope`.
    """

    __slots__ = (
        "_apart_ms",
        "_began",
        "_duration_ms",
        "crawl_id",
        "document_url",
        "error_message",
        "job_id",
        "metadata",
        "operation_name",
        "operation_type",
        "request_id",
        "success",
        "timestamp",
    )

    def __init__(
        self,
        operation_type: str,
        operation_name: str,
        request_id: str | None = None,
        job_id: str | None = None,
        crawl_id: str | None = None,
        document_url: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.operation_type = operation_type
        self.operation_name = operation_name
        self.request_id = request_id
        self.job_id = job_id
        self.crawl_id = crawl_id
        self.document_url = document_url
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.success = True
        self.error_message: str | None = None
        self.timestamp = 0.0
        self._began = 0.0
        self._apart_ms = 0.0
        self._duration_ms: float | None = None

    @classmethod
    def past(
        cls,
        operation_type: str,
        operation_name: str,
        began_at: datetime,
        ended_at: datetime,
        error_message: str | None = None,
        **ids: Any,
    ) -> Self:
        """An operation that was measured by the clock, elsewhere; failed if it has an error."""
        known = cls(operation_type, operation_name, **ids)
        known.timestamp = began_at.timestamp()
        known._duration_ms = whole_ticks(max(0.0, (ended_at - began_at).total_seconds() * 1000))
        if error_message:
            known.fail(error_message)
        return known

    def so_far(self, **ids: Any) -> "TimingContext":
        """The operation as if it ended now, of these ids, while its block runs on."""
        known = TimingContext(self.operation_type, self.operation_name, **ids)
        known.timestamp, known._duration_ms = self.timestamp, whole_ticks(self.duration_ms)
        return known

    @property
    def duration_ms(self) -> float:
        if self._duration_ms is not None:
            return self._duration_ms
        return self._elapsed_ms() - self._apart_ms if self._began else 0.0

    def fail(self, message: str) -> None:
        """Marks the operation as failed without an exception leaving the block."""
        self.success = False
        self.error_message = message

    def __enter__(self) -> Self:
        self.timestamp = time()
        self._duration_ms = None
        self._apart_ms = 0.0
        self._began = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._duration_ms is None or error is not None:
            self.stop()
        if error is not None:
            self.fail(str(error) or type(error).__name__)
        self._hand_over()

    def set_apart(self, seconds: float, operation_type: str, operation_name: str) -> None:
        """Attributes so much of the time since the block began to another operation instead of this one."""
        apart_ms = whole_ticks(min(seconds * 1000, self.duration_ms))
        if apart_ms <= 0:
            return
        self._apart_ms += apart_ms
        other = TimingContext(
            operation_type, operation_name, self.request_id, self.job_id, self.crawl_id, self.document_url
        )
        other.timestamp, other._duration_ms = self.timestamp, apart_ms
        other.identify()
        other._hand_over()

    def stop(self) -> None:
        """Ends the measurement before its block ends, or again. It is counted when the block ends."""
        self._duration_ms = max(0.0, whole_ticks(self._elapsed_ms()) - self._apart_ms)
        self.identify()

    def _elapsed_ms(self) -> float:
        return (perf_counter() - self._began) * 1000

    def identify(self) -> None:
        """Takes the ids that are not given from the surrounding `scope`, now instead of at the end."""
        current = _scope.get()
        self.crawl_id = self.crawl_id or current.crawl_id
        self.job_id = self.job_id or current.job_id
        self.request_id = self.request_id or current.request_id
        self.document_url = self.document_url or current.document_url

    def _hand_over(self) -> None:
        meters.operation_ended(self)
        traces.operation_ended(self)
        (_scope.get().collect or standalone.collect)(self)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


@dataclass
class _Wait:
    seconds: float = 0.0


_wait: ContextVar[_Wait | None] = ContextVar("crawlscope_timing_wait", default=None)


def note_wait(seconds: float) -> None:
    """Adds to the wait of the surrounding `waits_apart`."""
    if wait := _wait.get():
        wait.seconds += seconds


@contextmanager
def waits_apart(whole: TimingContext, operation_type: str, operation_name: str) -> Iterator[None]:
    """Attributes the waits noted in the block to another operation instead of `whole`."""
    wait = _Wait()
    token = _wait.set(wait)
    try:
        yield
    finally:
        _wait.reset(token)
        whole.set_apart(wait.seconds, operation_type, operation_name)
