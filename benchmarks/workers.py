"""The growth of pages a second with the number of workers, as long as the embedder sets the pace.

    python -m benchmarks.workers [--quick] [--pages N] [--rounds N] [--json FILE]

The embedding server answers each request after 50 ms and takes no processor. It takes one text in a request:
so 4 workers, each with 8 requests in progress, need no more than half of two processors, and what they lose
to each other shows. `--pages` are those of each worker, so that all numbers of workers have the same time.
If other programs keep the processors busy, the ratio shows that.
"""

import statistics
from collections.abc import Sequence

from benchmarks.instant_embedder import instant_embedder
from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.service import Ingested, measured_service

PART = "workers"
WORKERS = (1, 2, 4)
MIN_RATIO = 0.9
SECONDS_PER_REQUEST = 0.05
TEXTS_PER_REQUEST = 1
"""With 32, 4 workers could index 700 pages a second, for which two processors do not suffice."""
SMALLEST, LARGEST = 4_000, 20_000


async def measure(options: Options) -> Sequence[Row]:
    pages, rounds = options.pages_or(160, 48), options.rounds_or(2)
    ingested = {workers: await _ingested(workers, workers * pages, rounds) for workers in WORKERS}
    rates = {n: statistics.median(each.pages_per_second for each in ingested[n]) for n in WORKERS}
    rows = []
    for workers, rate in rates.items():
        linear = workers * rates[1]
        at_least = None if workers == 1 else MIN_RATIO
        against = f"{workers} times one: {number(linear)}"
        rows.append(Row(PART, f"workers: {workers}", rate, "pages/s", against, rate / linear, at_least))
        used = statistics.median(sum(each.cpu_seconds.values()) / each.seconds for each in ingested[workers])
        rows.append(Row(PART, "– processors in use", used, ""))
    return rows


async def _ingested(workers: int, pages: int, rounds: int) -> list[Ingested]:
    with instant_embedder(SECONDS_PER_REQUEST, TEXTS_PER_REQUEST) as url:
        async with measured_service(WORKERS=str(workers), EMBEDDER="tei", EMBEDDER_URL=url) as service:
            await service.ingest(_load("first-pages", 16 * workers))
            return [await service.ingest(_load(f"round-{number}", pages)) for number in range(rounds)]


def _load(crawl_id: str, pages: int) -> Load:
    return Load(crawl_id, pages, smallest=SMALLEST, largest=LARGEST)


if __name__ == "__main__":
    run_alone(measure, __doc__)
