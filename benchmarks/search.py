"""How many searches a second the service answers, and how long one takes while pages are indexed.

    python -m benchmarks.search [--quick] [--pages N] [--json FILE]

Hybrid searches over HTTP on eight connections from a process of its own. The embedding server answers at
once, so that the model's time is left out. While searches run, pages are delivered as fast as the service
takes them.
"""

import asyncio
import re
from collections.abc import Sequence

from benchmarks.load import Delivered, Load, Searches
from benchmarks.pages import pages_of_site
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import cpu_seconds
from benchmarks.service import MeasuredService, instant_service, require

PART = "search"
MIN_PER_SECOND = 300.0
MAX_RATIO = 2.0
WORDS = 4
QUERIES = 500


def queries() -> tuple[str, ...]:
    """A few words that follow each other on a page."""
    words = [re.findall(r"[A-Za-z]{3,}", page) for page in pages_of_site()]
    places = [(page, start) for page in words for start in range(200, len(page) - WORDS, 97)]
    return tuple(" ".join(page[start : start + WORDS]) for page, start in places[:QUERIES])


async def measure(options: Options) -> Sequence[Row]:
    pages, seconds = options.pages_or(400, 100), 5.0 if options.quick else 15.0
    asked = Searches(queries(), seconds)
    async with instant_service() as service:
        await service.ingest(Load("searched", pages))
        await service.search(Searches(asked.queries, 2.0))
        before = cpu_seconds()
        idle = await service.search(asked)
        used = cpu_seconds()
        used.subtract(before)
        busy = await _while_indexing(service, asked)
    for each in (idle, busy):
        require(each, 200)
    shares = {kind: 1000 * used[kind] / idle.count for kind in ("API", "index", "PostgreSQL")}
    where = ", ".join(f"{kind} {number(share)}" for kind, share in shares.items())
    calm, loaded = idle.percentile_ms(0.95), busy.percentile_ms(0.95)
    return [
        Row(
            PART,
            f"searches on {asked.connections} connections",
            idle.count / idle.seconds,
            "/s",
            f"p50 {number(idle.percentile_ms(0.5))} ms, {pages} pages",
            at_least=MIN_PER_SECOND,
        ),
        Row(PART, "CPU of a search, all processes", 1000 * sum(used.values()) / idle.count, "ms", where),
        Row(
            PART,
            "p95 while pages are indexed",
            loaded,
            "ms",
            f"idle {number(calm)} ms",
            loaded / calm,
            at_most=MAX_RATIO,
        ),
        Row(PART, "searches while pages are indexed", busy.count / busy.seconds, "/s"),
    ]


async def _while_indexing(service: MeasuredService, asked: Searches) -> Delivered:
    """The load ends with the searches."""
    load = Load("meanwhile", pages=100_000, seconds=asked.seconds + 3)
    delivering = asyncio.create_task(service.deliver(load))
    await asyncio.sleep(2)  # its first pages are indexed by now
    answered = await service.search(asked)
    await delivering
    return answered


if __name__ == "__main__":
    run_alone(measure, __doc__)
