"""Gathers what the profile of a crawl is made of."""

import asyncio
from dataclasses import dataclass

from crawlscope.api.client import ServiceClient
from crawlscope.core.vocabulary import PageState
from crawlscope.insights.schemas import CrawlMetricsResponse, PageListResponse

PAGES_ASKED = 1_000
"""As many as one answer holds."""


@dataclass(frozen=True)
class CrawlReport:
    crawl: CrawlMetricsResponse
    slowest: PageListResponse
    """The slowest first; of large crawls not all."""
    failed: PageListResponse


async def gather_report(client: ServiceClient, crawl_id: str) -> CrawlReport:
    crawl, slowest, failed = await asyncio.gather(
        client.crawl(crawl_id),
        client.pages(crawl_id, sort="slowest", limit=PAGES_ASKED),
        client.pages(crawl_id, state=PageState.FAILED.value, limit=PAGES_ASKED),
    )
    return CrawlReport(crawl, slowest, failed)
