"""How long a crawl takes that finds nothing new, against the first crawl of the same pages.

    python -m benchmarks.recrawl [--quick] [--pages N] [--json FILE]

The default installation, with its local model. Pages of 8 kB in the median.
"""

from collections.abc import Sequence

from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.service import measured_service

PART = "recrawl"
MAX_RATIO = 1 / 15
SMALLEST = 1_000


async def measure(options: Options) -> Sequence[Row]:
    pages = options.pages_or(500, 60)
    async with measured_service() as service:
        await service.ingest(Load("first-pages", pages=4))
        first = await service.ingest(Load("first", pages, host="site.example", smallest=SMALLEST))
        second = await service.ingest(Load("second", pages, host="site.example", smallest=SMALLEST))
        unchanged = (await service.client.crawl("second")).pages_unchanged
    if unchanged != pages:
        raise SystemExit(f"only {unchanged} of {pages} pages were unchanged")
    ratio = second.seconds / first.seconds
    against = f"first crawl {number(first.seconds)} s"
    cpu = 1000 * sum(second.cpu_seconds.values()) / pages
    return [
        Row(
            PART, f"crawl of {pages} unchanged pages", second.seconds, "s", against, ratio, at_most=MAX_RATIO
        ),
        Row(PART, "CPU of an unchanged page, all processes", cpu, "ms"),
    ]


if __name__ == "__main__":
    run_alone(measure, __doc__)
