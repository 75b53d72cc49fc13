"""What a service costs that has nothing to do: its CPU time and SQL statements.

    python -m benchmarks.idle [--quick] [--minutes M] [--json FILE] [--details]

After its first pages, and a rest in which what follows them ends. The statements are counted after the CPU
time, because writing them to PostgreSQL's log costs some.
"""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.cpu import logged_statements, without_transactions
from benchmarks.load import Load
from benchmarks.part import Options, Row, run_alone
from benchmarks.processes import cpu_seconds
from benchmarks.service import measured_service

PART = "idle"
MAX_CPU_MS = 5.0
MAX_STATEMENTS = 3.0
REST_SECONDS = 20.0


async def measure(options: Options) -> Sequence[Row]:
    seconds = 60 * options.minutes_or(1, 0.5)
    async with measured_service() as service:
        await service.ingest(Load("first-pages", pages=4))
        await asyncio.sleep(REST_SECONDS)
        before, began = cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        used, took = cpu_seconds(), time.monotonic() - began
        used.subtract(before)
        async with logged_statements(service) as statements:
            await asyncio.sleep(seconds)
    if options.details:
        print("\n".join(f"{count / seconds:6.2f} {text[:180]}" for text, count in statements.most_common()))
    every, total = without_transactions(statements), sum(used.values())
    return [
        Row(PART, "CPU of a second, all processes", 1000 * total / took, "ms", at_most=MAX_CPU_MS),
        *(Row(PART, f"– {kind}", 1000 * used[kind] / took, "ms") for kind in sorted(used)),
        Row(PART, "SQL statements of a second", every / seconds, "", at_most=MAX_STATEMENTS),
    ]


if __name__ == "__main__":
    run_alone(measure, __doc__)
