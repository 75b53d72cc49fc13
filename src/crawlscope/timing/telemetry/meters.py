"""Counts what this process does, for monitoring: in memory, at the cost of a dictionary's entry.

A process that reports has its `Totals` in use; without them counting has no effect.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.conventions import Metric

Labels = tuple[str, ...]
"""The values of a metric's labels, in their order."""


@dataclass
class Total:
    """The sum of all additions; of a histogram also the number of values per bucket, the last one for
    everything greater than the greatest bound."""

    value: float = 0.0
    buckets: list[int] = field(default_factory=list)

    def add(self, other: "Total") -> None:
        self.value += other.value
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]


Series = dict[tuple[Metric, Labels], Total]
Gauges = dict[tuple[Metric, Labels], float]


class Totals:
    """The sums since they were taken last. Safe from any thread."""

    def __init__(self) -> None:
        self._series: Series = {}
        self._lock = Lock()

    def add(self, metric: Metric, labels: Labels, amount: float) -> None:
        """Counts `amount`, or observes that many seconds."""
        with self._lock:
            total = self._series.get((metric, labels))
            if total is None:
                empty = [0] * (len(metric.buckets) + 1) if metric.buckets else []
                total = self._series[metric, labels] = Total(0.0, empty)
            total.value += amount
            if total.buckets:
                total.buckets[bisect_left(metric.buckets, amount)] += 1

    def take(self) -> Series:
        with self._lock:
            taken, self._series = self._series, {}
            return taken

    def show(self, gauge: Metric, labels: Labels, value: float) -> None:
        """Gauges are read when they are asked for: there is nothing to add up."""

    def put_back(self, series: Series) -> None:
        """Puts back counts that were taken and could not be reported."""
        with self._lock:
            for key, total in series.items():
                if known := self._series.get(key):
                    known.add(total)
                else:
                    self._series[key] = total


class Recorder(Protocol):
    def add(self, metric: Metric, labels: Labels, amount: float) -> None: ...

    def show(self, gauge: Metric, labels: Labels, value: float) -> None: ...


class _Process:
    """The state of this module, for the life of the process."""

    recorders: tuple[Recorder, ...] = ()


@contextmanager
def use(*recorders: Recorder) -> Iterator[None]:
    """Within the block, they get what the process counts, besides those in use already."""
    before, _Process.recorders = _Process.recorders, (*_Process.recorders, *recorders)
    try:
        yield
    finally:
        _Process.recorders = before


def count(metric: Metric, *labels: str, amount: float = 1.0) -> None:
    for recorder in _Process.recorders:
        recorder.add(metric, labels, amount)


def observe(metric: Metric, *seconds: float, labels: Labels = ()) -> None:
    for recorder in _Process.recorders:
        for each in seconds:
            recorder.add(metric, labels, max(0.0, each))


def show(gauge: Metric, labels: Labels, value: float) -> None:
    """The value of a gauge now."""
    for recorder in _Process.recorders:
        recorder.show(gauge, labels, value)


def _on_commit(connection: AsyncConnection, work: Callable[[], None]) -> None:
    """Runs `work` when the transaction commits; not if it fails before, or is tried again."""
    if _Process.recorders and connection.sync_connection is not None:
        event.listen(connection.sync_connection, "commit", lambda _: work())


def pages_claimed(connection: AsyncConnection, waited_seconds: Sequence[float]) -> None:
    """Counts pages that waited so long in the queue, when the transaction commits."""
    _on_commit(connection, lambda: observe(conventions.QUEUE_WAITS, *waited_seconds))


def pages_settled(connection: AsyncConnection, states: Mapping[PageState, int]) -> None:
    """Counts so many pages by state, when the transaction commits; `QUEUED` is a page that was put back."""

    def count_pages() -> None:
        for state, pages in states.items():
            if state is PageState.QUEUED:
                count(conventions.RETRIES, amount=pages)
            else:
                count(conventions.PAGES, state, amount=pages)

    if states:
        _on_commit(connection, count_pages)


def operation_ended(operation: Measurement) -> None:
    if not _Process.recorders:
        return
    kind = operation.operation_type
    label = str(kind) if kind in conventions.OPERATION_TYPES else conventions.OTHER
    outcome = conventions.SUCCESS if operation.success else conventions.ERROR
    observe(conventions.OPERATIONS, operation.duration_ms / 1000, labels=(label, outcome))
    if kind == OperationType.EMBEDDING and operation.success:
        chunks = operation.metadata.get("chunks")
        count(conventions.CHUNKS, amount=chunks if isinstance(chunks, int) else 0)
