"""The cost of one `TimingContext`, alone and with the storage of its measurement.

    python -m benchmarks.timing [--quick] [--rounds N] [--json FILE]

Alone: the CPU time of its thread, against a span of OpenTelemetry's SDK with a batch processor and the same
ids as attributes, where `make benchmark-setup` has installed the SDK. With storage: measurements go through
the buffer of the process into the embedded PostgreSQL, against one INSERT and COMMIT for each. The least that
any writer could take is measured too: COPY of the same rows into the same columns and indexes.
"""

import asyncio
import importlib.util
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import asyncpg

from benchmarks.part import Options, Row, number, run_alone
from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database
from crawlscope.timing import TimingContext, scope, standalone
from crawlscope.timing.store import MeasurementBuffer

PART = "timing"
ROUNDS = 15
CONTEXTS = 20_000
SPANS = 2_000
STORED = 10_000
OPERATIONS_OF_PAGE = 6
INSERTED = 300
LIMIT_MICROSECONDS = 5.0
MAX_OF_SPAN = 1 / 5
MAX_OF_INSERT = 1 / 50
IDS: dict[str, Any] = {"crawl_id": "c", "job_id": "j", "document_url": "https://example.com/"}
INSERT = """
    INSERT INTO webhook.operation_metrics
        (timestamp, operation_type, operation_name, duration_ms, success, crawl_id, job_id, document_url)
    VALUES (now(), 'chunking', 'chunk_text', 1.0, true, $1, $2, $3)
"""


async def measure(options: Options) -> Sequence[Row]:
    rounds = options.rounds_or(ROUNDS)
    alone = cost_microseconds(rounds)
    rows = [Row(PART, "one TimingContext", alone, "µs", at_most=LIMIT_MICROSECONDS)]
    if importlib.util.find_spec("opentelemetry.sdk"):
        span = _span_microseconds(rounds)
        against = f"OpenTelemetry span {number(span)} µs"
        rows.append(Row(PART, "– against a span", alone, "µs", against, alone / span, at_most=MAX_OF_SPAN))
    stored, copied, inserted = await asyncio.to_thread(_stored_copied_and_inserted_microseconds)
    against = f"INSERT + COMMIT {number(inserted)} µs"
    return [
        *rows,
        Row(PART, "with its storage", stored, "µs", against, stored / inserted, at_most=MAX_OF_INSERT),
        Row(PART, "– COPY alone, with the indexes", copied, "µs", against, copied / inserted),
    ]


def cost_microseconds(rounds: int = ROUNDS) -> float:
    """The median over rounds of a context's cost, the loop around it taken off."""

    def contexts() -> None:
        collected: deque[TimingContext] = deque(maxlen=OPERATIONS_OF_PAGE)
        with scope(**IDS, collect=collected.append):
            for _ in range(CONTEXTS):
                with TimingContext("chunking", "chunk_text"):
                    pass

    def nothing() -> None:
        for _ in range(CONTEXTS):
            pass

    return statistics.median((_cpu(contexts) - _cpu(nothing)) / CONTEXTS * 1e6 for _ in range(rounds))


def _span_microseconds(rounds: int) -> float:
    """The exporter drops the spans: as much as possible is left out of what is compared."""
    trace: Any = importlib.import_module("opentelemetry.sdk.trace")
    export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
    exporter = type(
        "Dropping", (export.SpanExporter,), {"export": lambda *_: export.SpanExportResult.SUCCESS}
    )
    provider = trace.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(exporter()))
    tracer = provider.get_tracer("benchmark")

    def spans() -> None:
        for _ in range(SPANS):
            with tracer.start_as_current_span("chunk_text", attributes={"type": "chunking", **IDS}):
                pass

    try:
        return statistics.median(_cpu(spans) / SPANS * 1e6 for _ in range(rounds))
    finally:
        provider.shutdown()


def _cpu(work: Callable[[], None]) -> float:
    began = thread_time()
    work()
    return thread_time() - began


def _stored_copied_and_inserted_microseconds() -> tuple[float, float, float]:
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        ways = (_through_the_buffer, _copied, _inserted)
        stored, copied, inserted = [asyncio.run(way(server.url)) for way in ways]
        return stored, copied, inserted


async def _through_the_buffer(url: str) -> float:
    database = Database.open(url)
    await schema.upgrade(database)
    buffer = MeasurementBuffer(database)
    pages: list[dict[str, Any]] = [
        {"job_id": str(page), "document_url": f"https://example.com/{page}"} for page in range(STORED)
    ]
    with standalone.use(buffer), scope(crawl_id=IDS["crawl_id"]):
        began = perf_counter()
        for operation in range(STORED):
            with TimingContext("chunking", "chunk_text", **pages[operation // OPERATIONS_OF_PAGE]):
                pass
        await buffer.flush()
        taken = perf_counter() - began
    await database.close()
    return taken / STORED * 1e6


async def _copied(url: str) -> float:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE copied (LIKE webhook.operation_metrics INCLUDING INDEXES)")
    rows = await connection.fetch("SELECT * FROM webhook.operation_metrics")
    records = list(map(tuple, rows))
    began = perf_counter()
    await connection.copy_records_to_table("copied", records=records, columns=list(rows[0].keys()))
    taken = perf_counter() - began
    await connection.close()
    return taken / len(rows) * 1e6


async def _inserted(url: str) -> float:
    connection = await asyncpg.connect(url)
    began = perf_counter()
    for _ in range(INSERTED):
        await connection.execute(INSERT, IDS["crawl_id"], IDS["job_id"], IDS["document_url"])
    taken = perf_counter() - began
    await connection.close()
    return taken / INSERTED * 1e6


if __name__ == "__main__":
    run_alone(measure, __doc__)
