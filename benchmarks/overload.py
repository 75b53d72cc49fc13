"""Deliveries at twice the rate at which the service can index them.

    python -m benchmarks.overload [--quick] [--minutes M] [--json FILE]

First the rate of indexing is measured. Then deliveries come at twice that rate for two minutes (or M), and
then all pages must become searchable.
"""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import ALL, memory_mb
from benchmarks.service import instant_service

PART = "overload"
MAX_SLOWEST_MS = 2_000.0
MAX_MEMORY_RATIO = 1.2
CONNECTIONS = 64
MEMORY_INTERVAL_SECONDS = 5.0


async def measure(options: Options) -> Sequence[Row]:
    seconds = 60 * options.minutes_or(2, 0.5)
    async with instant_service() as service:
        rate = (await service.ingest(Load("rate", options.pages_or(300, 100)))).pages_per_second
        memory = [memory_mb()]
        pages = int(2 * rate * seconds)
        load = Load("flood", pages, per_second=2 * rate, connections=CONNECTIONS)
        watching = asyncio.create_task(_watch(memory))
        delivered = await service.deliver(load)
        waiting = delivered.count - await service.outcomes(load.crawl_id)
        began = time.monotonic()
        await service.await_outcomes(load.crawl_id, delivered.count)
        drained = time.monotonic() - began
        watching.cancel()
        failed = (await service.client.crawl(load.crawl_id)).pages_failed
    refused = delivered.count - delivered.statuses[202]
    against = f"{number(2 * rate)}/s for {seconds:.0f} s"
    slowest = max(delivered.latencies_ms)
    p99 = f"p99 {number(delivered.percentile_ms(0.99))} ms"
    most = max(memory, key=lambda used: used[ALL])
    grown = ", ".join(
        f"{kind} {number(memory[0].get(kind, 0))} → {number(size)}"
        for kind, size in sorted(most.items(), key=lambda item: -item[1])
        if kind != ALL
    )
    return [
        Row(PART, "slowest delivery at twice the rate", slowest, "ms", p99, at_most=MAX_SLOWEST_MS),
        Row(PART, "refused deliveries", refused, "", against, at_most=0),
        Row(PART, "pages that failed", failed, "", f"of {delivered.count}", at_most=0),
        Row(
            PART,
            "largest memory",
            most[ALL],
            "MB",
            grown,
            most[ALL] / memory[0][ALL],
            at_most=MAX_MEMORY_RATIO,
        ),
        Row(PART, "until all were searchable", drained, "s", f"{waiting} waited"),
    ]


async def _watch(memory: list[dict[str, float]]) -> None:
    while True:
        await asyncio.sleep(MEMORY_INTERVAL_SECONDS)
        memory.append(memory_mb())


if __name__ == "__main__":
    run_alone(measure, __doc__)
