"""How much memory all processes of the service use after the first pages, and after many.

    python -m benchmarks.memory [--quick] [--pages N] [--minutes M] [--json FILE]

Pages of 6 kB in the median, so that many fit in the time: it ends after 50,000 pages or four minutes. The
memory after many pages is the median of the last ten measurements, one after each 500 pages; the most at any
of them, which includes a process that optimises the index, is apart. Memory that processes share is counted
once, and files that are mapped into memory are apart.
"""

import statistics
import time
from collections.abc import Sequence

from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import ALL, memory_mb
from benchmarks.service import instant_service

PART = "memory"
MAX_RATIO = 1.2
MAX_MB = 1_074.0
FIRST_PAGES = 1_000
PAGES = 50_000
STEP = 500
LAST = 10
SMALLEST, LARGEST = 1_000, 12_000


async def measure(options: Options) -> Sequence[Row]:
    pages, deadline = options.pages or PAGES, time.monotonic() + 60 * options.minutes_or(4, 1)
    first, done = 300 if options.quick else FIRST_PAGES, 0
    async with instant_service() as service:
        step = first
        measured: list[dict[str, float]] = []
        while not measured or (done < pages and time.monotonic() < deadline):
            await service.ingest(Load(f"crawl-{done}", step, smallest=SMALLEST, largest=LARGEST))
            done += step
            measured.append(memory_mb())
            step = STEP
    early = measured[0]
    late = {kind: statistics.median(each.get(kind, 0) for each in measured[-LAST:]) for kind in early}
    most = max(each[ALL] for each in measured)
    against = f"{first} pages {number(early[ALL])} MB"
    ratio = late[ALL] / early[ALL]
    return [
        Row(PART, f"all processes after {done} pages", late[ALL], "MB", against, ratio, at_most=MAX_RATIO),
        Row(PART, "all processes", late[ALL], "MB", at_most=MAX_MB),
        Row(PART, "– at most", most, "MB"),
        *(
            Row(PART, f"– {kind}", size, "MB", f"{number(early.get(kind, 0))} MB")
            for kind, size in sorted(late.items())
            if kind != ALL
        ),
    ]


if __name__ == "__main__":
    run_alone(measure, __doc__)
