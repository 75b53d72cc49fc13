"""Holds what is measured outside a page until it is written, in batches, within half a second."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError
from crawlscope.database.engine import Database
from crawlscope.timing.store import Measurement, RequestRecord, record_operations, record_requests

FLUSH_SECONDS = 0.4
BATCH = 1_000
CAPACITY = 100_000

Record = Callable[[AsyncConnection, Sequence[Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


class MeasurementBuffer:
    """Adding never blocks or fails and is safe from any thread.

    While the database is away measurements wait; beyond `CAPACITY` the oldest are dropped and counted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._operations: deque[Measurement] = deque()
        self._requests: deque[RequestRecord] = deque()
        self._stopping = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self.dropped = 0

    def add_operation(self, measurement: Measurement) -> None:
        self._operations.append(measurement)

    def add_request(self, request: RequestRecord) -> None:
        self._requests.append(request)

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_on())

    async def stop(self) -> None:
        """Writes what is left; what the database does not take then is lost, and logged."""
        self._stopping.set()
        if self._writer:
            await self._writer
        await self.flush()
        if left := len(self._operations) + len(self._requests):
            log.warning("measurements_lost", count=left)

    async def _write_on(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes everything that waits; while the database is away it goes on waiting."""
        try:
            async with self._flushing:  # two at once would write the same
                await self._drain(self._operations, record_operations)
                await self._drain(self._requests, record_requests)
        except CrawlscopeError as error:
            log.warning("measurements_wait", reason=str(error), count=len(self._operations))
            for queue in (self._operations, self._requests):
                self.dropped += _take(queue, len(queue) - CAPACITY)

    async def _drain(self, queue: deque[Any], record: Record) -> None:
        size = BATCH
        while queue:
            batch = list(islice(queue, size))
            try:
                async with self._database.transaction() as connection:
                    await record(connection, batch)
            except CrawlscopeError:
                raise
            except Exception:
                if len(batch) > 1:  # one of them cannot be stored: the others shall be
                    size = 1
                    continue
                log.exception("measurement_refused")
                self.dropped += 1
            _take(queue, len(batch))


def _take(queue: deque[Any], count: int) -> int:
    """Removes up to `count` from the old end; returns how many there were."""
    taken = min(max(count, 0), len(queue))
    for _ in range(taken):
        queue.popleft()
    return taken
