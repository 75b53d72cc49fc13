"""How much of the embedder's speed the whole way of a page keeps, and what one `TimingContext` costs.

    python -m benchmarks.pipeline [--pages N] [--rounds N] [--smallest CHARACTERS]

Pipeline: a running service gets N pages at its webhook endpoint and is timed until the last one is
searchable. Alone: the same chunks of the same pages, cut beforehand, through the same model on as many
threads as the service has workers. Both are measured in turns within one run; the ratio is of their medians.
"""

import argparse
import asyncio
import os
import statistics
import time
from typing import Any
from uuid import uuid4

from benchmarks.pages import MIN_PAGE_CHARACTERS, pages_of_site
from benchmarks.service import API_SECRET, running_service, settled
from benchmarks.timing import LIMIT_MICROSECONDS, cost_microseconds
from crawlscope.api.client import ServiceClient
from crawlscope.core.settings import Settings
from crawlscope.crawler.sender import WebhookSender
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.local import LocalEmbedder
from crawlscope.insights.schemas import CrawlMetricsResponse

LIMIT_RATIO = 0.85


def chunks_of(pages: list[str], embedder: LocalEmbedder, max_tokens: int) -> list[str]:
    return [chunk.text for page in pages for chunk in split(clean(page), embedder.tokenizer, max_tokens)]


async def seconds_alone(chunks: list[str], embedder: LocalEmbedder) -> float:
    began = time.perf_counter()
    await embedder.embed(chunks)
    return time.perf_counter() - began


async def seconds_through_service(
    service: ServiceClient, pages: list[str]
) -> tuple[float, CrawlMetricsResponse]:
    """Until the last page is settled; all pages must be indexed. With what the recorder says of the crawl."""
    crawl_id = str(uuid4())
    events = [_event(crawl_id, number, text) for number, text in enumerate(pages)]
    async with WebhookSender(lambda: service.url or "", API_SECRET) as sender:
        began = time.perf_counter()
        for event in events:
            await sender.send(event)
        crawl = await settled(service, crawl_id)
        elapsed = time.perf_counter() - began
    assert crawl.pages_indexed == len(pages), crawl
    return elapsed, crawl


def _event(crawl_id: str, number: int, markdown: str) -> dict[str, Any]:
    url = f"https://{crawl_id}.example/{number}"
    return {
        "success": True,
        "type": "crawl.page",
        "id": crawl_id,
        "webhookId": str(uuid4()),
        "data": [{"markdown": markdown, "metadata": {"sourceURL": url, "statusCode": 200}}],
        "metadata": {},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pages", type=int, default=30)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--smallest", type=int, default=MIN_PAGE_CHARACTERS, help="characters")
    options = arguments.parse_args()
    asyncio.run(measure(pages_of_site(options.pages, options.smallest), options.rounds))


async def measure(pages: list[str], rounds: int) -> None:
    threads = os.cpu_count() or 1
    embedder = LocalEmbedder(threads=threads)
    chunks = chunks_of(pages, embedder, Settings().chunk_tokens)
    median = statistics.median(len(page) for page in pages)
    print(f"{len(pages)} pages of {median:,.0f} characters in the median, {len(chunks)} chunks")
    print(f"{threads} workers, {rounds} rounds")
    alone, through = [], []
    async with running_service(WORKERS=str(threads)) as service:
        await seconds_through_service(service, pages[:4])  # the first pages find cold processes
        for number in range(rounds):
            alone.append(await seconds_alone(chunks, embedder))
            seconds, crawl = await seconds_through_service(service, pages)
            through.append(seconds)
            print(f"  round {number + 1}: alone {alone[-1]:.2f} s, pipeline {through[-1]:.2f} s")
    ratio = statistics.median(alone) / statistics.median(through)
    means = {name: f"{each.mean_ms:.0f}" for name, each in crawl.operations.items()}
    print(f"means of the last round, ms per page: {means}")
    print(f"embedding alone: {len(pages) / statistics.median(alone):.2f} pages/s")
    print(f"whole pipeline:  {len(pages) / statistics.median(through):.2f} pages/s")
    print(f"ratio: {ratio:.3f} (limit {LIMIT_RATIO})")
    print(f"one TimingContext: {cost_microseconds():.2f} µs (limit {LIMIT_MICROSECONDS:g} µs)")


if __name__ == "__main__":
    main()
