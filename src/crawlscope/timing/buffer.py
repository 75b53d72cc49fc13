"""Holds what is measured outside a page until it is written, in batches, within half a second."""

import asyncio
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any

import structlog

from crawlscope.database.engine import Database
from crawlscope.errors import CrawlscopeError
from crawlscope.timing.store import (
    Measurement,
    RequestRecord,
    record_operations,
    record_requests,
)

FLUSH_SECONDS = 0.4
BATCH = 1_000
CAPACITY = 100_000

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
            while self._operations or self._requests:
                await self._write_batch()
        except CrawlscopeError as error:
            log.warning("measurements_wait", reason=str(error), count=len(self._operations))
            self._forget(len(self._operations) - CAPACITY, len(self._requests) - CAPACITY)
        except Exception:
            log.exception("measurements_refused")
            self._forget(BATCH, BATCH)

    async def _write_batch(self) -> None:
        operations = list(islice(self._operations, BATCH))
        requests = list(islice(self._requests, BATCH))
        async with self._database.transaction() as connection:
            await record_operations(connection, operations)
            await record_requests(connection, requests)
        _take(self._operations, len(operations))
        _take(self._requests, len(requests))

    def _forget(self, operations: int, requests: int) -> None:
        self.dropped += _take(self._operations, operations) + _take(self._requests, requests)


def _take(queue: deque[Any], count: int) -> int:
    """Removes up to `count` from the old end; returns how many there were."""
    taken = min(max(count, 0), len(queue))
    for _ in range(taken):
        queue.popleft()
    return taken
