"""Finds the pages that a site lists in its sitemaps (sitemaps.org)."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urljoin

import structlog

from crawlscope.crawler.fetch import MAX_BODY_BYTES, FetchFailed
from crawlscope.crawler.links import normalise
from crawlscope.crawler.polite import PoliteClient
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.xml_pages import listing_of

log = structlog.get_logger(__name__)

MAX_SITEMAPS = 500
_USUAL_PLACE = "/sitemap.xml"


async def listed_pages(client: PoliteClient, site_url: str) -> AsyncGenerator[list[str]]:
    """The entries of each sitemap, one sitemap after another: those that robots.txt names, else
    `/sitemap.xml`.

    Reads at most 500 sitemaps and 20 MiB of each; one that cannot be fetched lists nothing. Raises `Stopped`.
    """
    rules = await client.rules(site_url)
    named = rules.sitemaps or [_USUAL_PLACE]
    waiting = [url for each in named if (url := normalise(urljoin(site_url, each)))]
    seen: set[str] = set()
    while waiting and len(seen) < MAX_SITEMAPS:
        url = waiting.pop(0)
        if url in seen:
            continue
        seen.add(url)
        try:
            answer = await client.fetch(url, lambda _: True, first_bytes=MAX_BODY_BYTES)
        except FetchFailed as failure:
            log.debug("sitemap_read_failed", url=url, reason=str(failure))
            continue
        if answer.status_code < 300:
            text = await asyncio.to_thread(decode, answer.body, answer.charset)
            listing = await asyncio.to_thread(listing_of, text, answer.url)
            waiting += listing.sitemaps
            yield listing.pages
