"""How many searches a second the service answers, and how long one takes while pages are indexed.

    python -m benchmarks.search [--quick] [--pages N] [--json FILE]

Hybrid searches over HTTP on eight connections from a process of its own. The embedding server answers at
once, so that the model's time is left out. The same searches run while workers index pages that were
delivered before, and while pages are delivered as fast as the service takes them.
"""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Delivered, Load, Searches
from benchmarks.pages import pages_of_site
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import cpu_seconds
from benchmarks.service import MeasuredService, instant_service, require
from crawlscope.core.data_dir import shard_folders
from crawlscope.indexing.index.optimizing import Goal, due
from crawlscope.indexing.index.port import FIRST_NAME

PART = "search"
MIN_PER_SECOND = 300.0
MAX_RATIO = 2.0
REST_SECONDS = 120
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
        index = "optimised" if await _is_at_rest(service) else "being optimised"
        await service.search(Searches(asked.queries, 2.0))
        before = cpu_seconds()
        idle = await service.search(asked)
        used = cpu_seconds()
        used.subtract(before)
        indexing = await _while_indexing(service, asked, backlog=100 * int(asked.seconds))
        receiving = await _while_receiving(service, asked)
    for each in (idle, indexing, receiving):
        require(each, 200)
    shares = {kind: 1000 * used[kind] / idle.count for kind in ("API", "index", "PostgreSQL")}
    where = ", ".join(f"{kind} {number(share)}" for kind, share in shares.items())
    calm = idle.percentile_ms(0.95)
    return [
        Row(
            PART,
            f"searches on {asked.connections} connections",
            idle.count / idle.seconds,
            "/s",
            f"p50 {number(idle.percentile_ms(0.5))} ms, {pages} pages, index {index}",
            at_least=MIN_PER_SECOND,
        ),
        Row(PART, "CPU of a search, all processes", 1000 * sum(used.values()) / idle.count, "ms", where),
        *_beside_idle("pages are indexed", indexing, calm, MAX_RATIO),
        *_beside_idle("pages are delivered as fast as they are taken", receiving, calm),
    ]


def _beside_idle(what: str, busy: Delivered, calm: float, at_most: float | None = None) -> list[Row]:
    loaded = busy.percentile_ms(0.95)
    return [
        Row(
            PART, f"p95 while {what}", loaded, "ms", f"idle {number(calm)} ms", loaded / calm, at_most=at_most
        ),
        Row(PART, f"searches while {what}", busy.count / busy.seconds, "/s"),
    ]


async def _is_at_rest(service: MeasuredService) -> bool:
    """Whether the index is optimised, which goes on after the last page, and has the lowest priority."""
    indexes = [folder / FIRST_NAME for folder in shard_folders(service.data_dir)]
    for _ in range(REST_SECONDS):
        if not any(map(_is_optimized_further, indexes)):
            return True
        await asyncio.sleep(1)
    return False


def _is_optimized_further(index: Path) -> bool:
    try:
        return any(due(index, goal) for goal in Goal)
    except FileNotFoundError:  # its segments are replaced at this moment
        return True


async def _while_indexing(service: MeasuredService, asked: Searches, backlog: int) -> Delivered:
    """The backlog outlasts the searches."""
    await service.deliver(Load("backlog", backlog))
    answered = await service.search(asked)
    after = await service.outcomes("backlog")
    if after == backlog:
        raise SystemExit(f"{backlog} pages were indexed before the searches ended")
    await service.await_outcomes("backlog", backlog)
    return answered


async def _while_receiving(service: MeasuredService, asked: Searches) -> Delivered:
    """The load ends with the searches."""
    load = Load("meanwhile", pages=100_000, seconds=asked.seconds + 3)
    delivering = asyncio.create_task(service.deliver(load))
    await asyncio.sleep(2)  # its first pages are indexed by now
    answered = await service.search(asked)
    await delivering
    return answered


if __name__ == "__main__":
    run_alone(measure, __doc__)
