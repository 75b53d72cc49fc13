"""Writes measurements that no scope collects: through the buffer of the process, or a writer of their own.

A service registers its buffer with `use`. In any other program the first measurement starts a thread
that connects to the database of the settings and writes the measurements, at the latest on exit.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 - registers its own end, which must come after ours
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import Settings, load_settings
from crawlscope.database import revision
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.store import MeasurementBuffer
from crawlscope.timing.telemetry.exported import exported
from crawlscope.timing.telemetry.reports import reported

EXIT_SECONDS = 10

log = structlog.get_logger(__name__)


class _Writer:
    """A buffer with an event loop and a database of its own, on a daemon thread."""

    def __init__(self) -> None:
        self._waiting: list[Measurement] = []
        self._buffer: MeasurementBuffer | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crawlscope-timing", daemon=True)
        self._thread.start()
        # `atexit` is too late: no thread can be started then, which the lookup of a host name needs.
        threading._register_atexit(self.stop)  # type: ignore[attr-defined]  # noqa: SLF001

    def collect(self, measurement: Measurement) -> None:
        with self._lock:
            if self._buffer is None:
                self._waiting.append(measurement)
            else:
                self._buffer.add_operation(measurement)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except CrawlscopeError as error:
            log.warning("measurements_lost", reason=str(error), count=len(self._waiting))

    async def _write(self) -> None:
        async with connected_database(load_settings()) as database:
            await revision.require_current(database)
            buffer = MeasurementBuffer(database)
            buffer.start()
            with self._lock:
                for measurement in self._waiting:
                    buffer.add_operation(measurement)
                self._waiting.clear()
                self._buffer = buffer
            while not self._stopping.is_set():  # noqa: ASYNC110 - set from another thread
                await asyncio.sleep(0.05)
            await buffer.stop()


class _Process:
    """The state of this module, for the life of the process."""

    collect: Callable[[Measurement], None] | None = None
    lock = threading.Lock()


def collect(measurement: Measurement) -> None:
    if _Process.collect is None:
        with _Process.lock:
            if _Process.collect is None:
                _Process.collect = _Writer().collect
    _Process.collect(measurement)


@contextmanager
def use(buffer: MeasurementBuffer) -> Iterator[None]:
    """Within the block, measurements that no scope collects go to `buffer`."""
    before, _Process.collect = _Process.collect, buffer.add_operation
    try:
        yield
    finally:
        _Process.collect = before


@asynccontextmanager
async def measured_database(
    settings: Settings, pool_size: int, kind: str
) -> AsyncIterator[tuple[Database, MeasurementBuffer]]:
    """The database, and the buffer that collects what the block measures and is written at its end. The
    counts of the process are reported for this kind of process.

    Raises `SettingsError` where the tables are not at this version's revision.
    """
    async with connected_database(settings, pool_size) as database:
        await revision.require_current(database)
        buffer = MeasurementBuffer(database)
        buffer.start()
        async with reported(database, kind), exported(settings, kind):
            with use(buffer):
                yield database, buffer
        await buffer.stop()
