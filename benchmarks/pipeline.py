"""How much of the local embedder's speed the whole way of a page keeps.

    python -m benchmarks.pipeline [--quick] [--pages N] [--rounds N] [--json FILE]

Pipeline: a running service gets N pages at its webhook endpoint and is timed until the last one is
searchable. Alone: the same passages of the same pages, cut beforehand, through the same model on a thread for
each processor, as in a worker. Both are measured in turns; the ratio is of their medians. A busy machine
gives several processes more time than one: there, look at the CPU time.
"""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import Load
from benchmarks.pages import MIN_PAGE_CHARACTERS, Site
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.service import Ingested, measured_service
from crawlscope.core.settings import Settings
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.local import LocalEmbedder
from crawlscope.indexing.passages import passages

PART = "pipeline"
MIN_RATIOS = {MIN_PAGE_CHARACTERS: 0.95, 1_000: 0.92}
"""By the smallest page: the medians are 21 and 8 kB."""


async def measure(options: Options) -> Sequence[Row]:
    embedder = LocalEmbedder(threads=os.cpu_count() or 1)
    rows = []
    async with measured_service() as service:
        await service.ingest(Load("first-pages", pages=4))
        for smallest, at_least in MIN_RATIOS.items():
            pages = options.pages_or(30, 24) * (1 if smallest == MIN_PAGE_CHARACTERS else 2)
            alone: list[Embedded] = []
            through: list[Ingested] = []
            for turn in range(options.rounds_or(3)):
                load = Load(f"turn-{turn}-{smallest}", pages, smallest=smallest)
                alone.append(await _embed_alone(load, embedder))
                through.append(await service.ingest(load))
            best = statistics.median(each.seconds for each in alone)
            real = statistics.median(each.seconds for each in through)
            sizes = [len(Site("", smallest).markdown(page)) for page in range(pages)]
            what = f"HTTP request to searchable, {statistics.median(sizes) / 1000:.0f} kB"
            against = f"embedding alone {number(pages / best)}"
            rows.append(Row(PART, what, pages / real, "pages/s", against, best / real, at_least))
            cpu = statistics.median(1000 * sum(each.cpu_seconds.values()) / pages for each in through)
            cpu_alone = statistics.median(1000 * each.cpu_seconds / pages for each in alone)
            rows.append(
                Row(PART, "– CPU", cpu, "ms", f"embedding alone {number(cpu_alone)}", cpu_alone / cpu)
            )
    await embedder.aclose()
    return rows


@dataclass(frozen=True)
class Embedded:
    seconds: float
    cpu_seconds: float


async def _embed_alone(load: Load, embedder: LocalEmbedder) -> Embedded:
    site = Site(load.website, load.smallest)
    texts = [text for page in range(load.pages) for text in _passages(site, page, embedder)]
    began, used = time.perf_counter(), time.process_time()
    await embedder.embed(texts)
    return Embedded(time.perf_counter() - began, time.process_time() - used)


def _passages(site: Site, page: int, embedder: LocalEmbedder) -> list[str]:
    text = clean(site.markdown(page))
    chunks = split(text, embedder.tokenizer, Settings().chunk_tokens)
    return passages(site.title(page), text, chunks, embedder.tokenizer)


if __name__ == "__main__":
    run_alone(measure, __doc__)
