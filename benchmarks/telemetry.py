"""The cost of monitoring: counting and tracing of one operation, and a scrape of few and of many crawls.

    python -m benchmarks.telemetry [--quick] [--rounds N] [--pages N] [--json FILE]

Operations: the CPU time of their thread; "not exported" against the same without the call that would export.
A scrape: what `/metrics` reads from a database with `--pages` crawls of one page, against one with 50, taken
in turns. The crawls are delivered to the endpoint's own code.
"""

import asyncio
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from sqlalchemy import text

from benchmarks.part import Options, Row, number, run_alone
from benchmarks.timing import cost_microseconds
from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database, sqlalchemy_url
from crawlscope.insights.monitoring import installation_metrics
from crawlscope.timing.telemetry import meters, reports, traces
from crawlscope.timing.telemetry.meters import Totals
from crawlscope.webhooks.acceptance import Acceptance

PART = "telemetry"
ROUNDS = 7
CRAWLS = 5_000
QUICK_CRAWLS = 500
FEW_CRAWLS = 50
SCRAPES = 40
AT_ONCE = 50
MAX_NOT_EXPORTED = 1.1
MAX_COUNTED_MICROSECONDS = 5.0
MAX_SCRAPE = 1.5
NOBODY = "http://127.0.0.1:9"


async def measure(options: Options) -> Sequence[Row]:
    rounds = options.rounds_or(ROUNDS)
    without = _in_turns(rounds, nullcontext, lambda: patch.object(traces, "operation_ended", _ignore))
    ratio = without[0] / without[1]
    rows = [
        Row(
            *(PART, "one operation, not exported", without[0], "µs", f"no such call {number(without[1])} µs"),
            ratio=ratio,
            at_most=MAX_NOT_EXPORTED,
        )
    ]
    counted = _in_turns(rounds, lambda: meters.use(Totals()))[0]
    rows.append(Row(PART, "– counted", counted, "µs", at_most=MAX_COUNTED_MICROSECONDS))
    if importlib.util.find_spec("opentelemetry.sdk"):
        exported = _in_turns(rounds, _exporting)[0]
        rows.append(Row(PART, "– counted, and a span of an exported trace", exported, "µs"))
    many, few = await asyncio.to_thread(_scrapes_ms, options.pages_or(CRAWLS, QUICK_CRAWLS))
    against = f"{FEW_CRAWLS} crawls {number(few)} ms"
    return [*rows, Row(PART, "a scrape", many, "ms", against, many / few, at_most=MAX_SCRAPE)]


def _in_turns(rounds: int, *surroundings: Callable[[], AbstractContextManager[object]]) -> list[float]:
    """The median cost of one operation in each of the surroundings."""
    taken: list[list[float]] = [[] for _ in surroundings]
    for _ in range(rounds):
        for costs, surrounding in zip(taken, surroundings, strict=True):
            with surrounding():
                costs.append(cost_microseconds(1))
    return [statistics.median(costs) for costs in taken]


def _ignore(_operation: object) -> None: ...


@contextmanager
def _exporting() -> Iterator[None]:
    """To nobody: the queue is full soon, and further spans are dropped."""
    from crawlscope.timing.telemetry.otlp import OtlpExporter  # noqa: PLC0415 - an extra

    exporter = OtlpExporter(NOBODY, "benchmark")
    with ExitStack() as stack:
        stack.callback(exporter.stop)
        stack.enter_context(meters.use(exporter))
        stack.enter_context(traces.use(exporter))
        stack.enter_context(traces.request(None))
        yield


def _scrapes_ms(crawls: int) -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        return asyncio.run(_compare(server.url, crawls))


async def _compare(url: str, crawls: int) -> tuple[float, float]:
    many, few = await _filled(url, "many", crawls), await _filled(url, "few", FEW_CRAWLS)
    taken: dict[Database, list[float]] = {many: [], few: []}
    for _ in range(SCRAPES):
        for database, durations in taken.items():
            async with database.transaction() as connection:
                began = perf_counter()
                await installation_metrics(connection)
                durations.append((perf_counter() - began) * 1000)
    for database in taken:
        await database.close()
    return statistics.median(taken[many]), statistics.median(taken[few])


async def _filled(url: str, name: str, crawls: int) -> Database:
    """A new database with so many crawls, and the counts of a process."""
    server = Database.open(url)
    async with server.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text(f"CREATE DATABASE {name}"))
    await server.close()
    database = Database.open(
        sqlalchemy_url(url).set(drivername="postgresql", database=name).render_as_string(False)
    )
    await schema.upgrade(database)
    acceptance, now = Acceptance(database), datetime.now(UTC)
    async with reports.reported(database, "api"):
        for first in range(0, crawls, AT_ONCE):
            numbers = range(first, min(crawls, first + AT_ONCE))
            await asyncio.gather(
                *[acceptance.accept(each, now) for number in numbers for each in _crawl(number)]
            )
    async with database.transaction() as connection:
        await connection.execute(text("ANALYZE"))
    return database


def _crawl(number: int) -> Iterator[bytes]:
    """Its only page, which failed and so settles at once, and its end."""
    metadata = {"sourceURL": f"https://example.com/{number}", "statusCode": 404}
    page = {"type": "crawl.page", "webhookId": "page", "data": [{"markdown": "", "metadata": metadata}]}
    for event in (page, {"type": "crawl.completed", "webhookId": "end", "data": []}):
        yield json.dumps({"success": True, "id": f"crawl-{number}", "metadata": {}, **event}).encode()


if __name__ == "__main__":
    run_alone(measure, __doc__)
