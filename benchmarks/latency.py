"""How long a delivery takes while the workers wait, and while they work as hard as they can.

    python -m benchmarks.latency [--quick] [--rounds N] [--json FILE]

The default installation, with its local model. In turns: deliveries while the workers are stopped, and the
same number while they index what has been delivered. Deliveries come at a fixed rate: a third of what the
endpoint takes while the workers are stopped, at most 20 a second. A delivery's time begins when it is due.
"""

import os
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.load import Delivered, Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import pids
from benchmarks.service import MeasuredService, measured_service, require

PART = "latency"
MAX_PER_SECOND = 20.0
SHARE = 1 / 3
"""A share of the endpoint's full rate, at which deliveries wait for each other."""
MAX_RATIO = 3.0
MAX_P99_MS = 250.0


async def measure(options: Options) -> Sequence[Row]:
    deliveries = options.pages_or(400, 200)
    idle, busy = [], []
    async with measured_service() as service:
        await service.ingest(Load("first-pages", pages=4))
        with stopped(pids("workers")):
            fastest = await service.deliver(Load("fastest", deliveries // 4))
        rate = min(MAX_PER_SECOND, SHARE * fastest.count / fastest.seconds)
        for turn in range(options.rounds_or(3)):
            with stopped(pids("workers")):
                idle.append(await _deliver(service, Load(f"idle-{turn}", deliveries, per_second=rate)))
            busy.append(await _deliver(service, Load(f"busy-{turn}", deliveries, per_second=rate)))
    return [*_rows("p50", 0.5, idle, busy), *_rows("p99", 0.99, idle, busy)]


async def _deliver(service: MeasuredService, load: Load) -> Delivered:
    delivered = await service.deliver(load)
    require(delivered, 202)
    return delivered


def _rows(what: str, share: float, idle: Sequence[Delivered], busy: Sequence[Delivered]) -> list[Row]:
    calm = statistics.median(each.percentile_ms(share) for each in idle)
    loaded = statistics.median(each.percentile_ms(share) for each in busy)
    against = f"idle {number(calm)} ms"
    judged = what == "p99"
    rows = [
        Row(
            PART,
            f"{what} of a delivery while workers work",
            loaded,
            "ms",
            against,
            loaded / calm,
            at_most=MAX_RATIO if judged else None,
        )
    ]
    return [*rows, Row(PART, "p99 alone", loaded, "ms", at_most=MAX_P99_MS)] if judged else rows


@contextmanager
def stopped(processes: Sequence[int]) -> Iterator[None]:
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    run_alone(measure, __doc__)
