"""Finds the pages that a site lists in its sitemaps (sitemaps.org)."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from urllib.parse import urljoin

import structlog

from crawlscope.crawler.fetch import MAX_BODY_BYTES, FetchFailed
from crawlscope.crawler.links import normalise
from crawlscope.crawler.polite import PoliteClient
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.xml_pages import Listing, listing_of

log = structlog.get_logger(__name__)

MOST_SITEMAPS = 500
_USUAL_PLACE = "/sitemap.xml"


async def listed_pages(client: PoliteClient, site_url: str) -> AsyncGenerator[list[str]]:
    """What each sitemap lists, one sitemap after another: those that robots.txt names, else `/sitemap.xml`.

    Reads 500 sitemaps and 20 MiB of each at most; one that cannot be had lists nothing. Raises `Stopped`.
    """
    rules = await client.rules(site_url)
    named = rules.sitemaps or [_USUAL_PLACE]
    waiting = list(_normal(urljoin(site_url, each) for each in named))
    seen: set[str] = set()
    while waiting and len(seen) < MOST_SITEMAPS:
        url = waiting.pop(0)
        if url in seen:
            continue
        seen.add(url)
        listing = await _read(client, url)
        waiting += listing.sitemaps
        yield listing.pages


async def _read(client: PoliteClient, url: str) -> Listing:
    try:
        answer = await client.fetch(url, lambda _: True, first_bytes=MAX_BODY_BYTES)
    except FetchFailed as failure:
        log.debug("sitemap_not_read", url=url, reason=str(failure))
        return Listing()
    if answer.status_code >= 300:
        return Listing()
    text = await asyncio.to_thread(decode, answer.body, answer.charset)
    return await asyncio.to_thread(listing_of, text, answer.url)


def _normal(urls: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(url for each in urls if (url := normalise(each)))
