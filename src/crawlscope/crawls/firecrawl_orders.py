"""What Firecrawl may be asked to do, checked before it is asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crawlscope.core.errors import UsageError
from crawlscope.crawler.targets import PrivateTarget, require_public
from crawlscope.crawls.requests import check_target
from crawlscope.crawls.schemas import MAX_BATCH_URLS
from crawlscope.firecrawl.schemas import JobKind

LARGEST_OPTIONS_BYTES = 64 * 1024
OWN_KEYS = frozenset(
    {"url", "urls", "limit", "webhook", "scrapeOptions", "scrape_options", "appendToId", "ignoreInvalidURLs"}
)
"""What Crawlscope itself says to Firecrawl."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class FirecrawlOrder:
    """A crawl from the one URL, or a batch scrape of just these."""

    kind: JobKind
    urls: Sequence[str]
    invalid_urls: Sequence[str] = ()
    """What was given as URLs and is none."""
    limit: int | None = None
    scrape_options: Options | None = None
    crawl_options: Options | None = None

    @property
    def url(self) -> str:
        """What gives the crawl its name."""
        return self.urls[0]


def crawl_order(
    url: str,
    limit: int | None = None,
    scrape_options: Options | None = None,
    crawl_options: Options | None = None,
) -> FirecrawlOrder:
    """Raises `UsageError` for what cannot be asked."""
    return FirecrawlOrder(
        JobKind.CRAWL,
        [check_target(url)],
        limit=limit,
        scrape_options=_checked_scrape_options(scrape_options),
        crawl_options=_checked("crawl_options", crawl_options),
    )


def batch_order(urls: Sequence[str], scrape_options: Options | None = None) -> FirecrawlOrder:
    """Leaves out repetitions. Raises `UsageError` for what cannot be asked."""
    if not 0 < len(urls) <= MAX_BATCH_URLS:
        raise UsageError(f"a batch scrape has 1 to {MAX_BATCH_URLS:,} urls, not {len(urls):,}")
    usable, invalid = dict[str, None](), dict[str, None]()
    for url in urls:
        try:
            usable[check_target(url)] = None
        except UsageError:
            invalid[url] = None
    if not usable:
        raise UsageError("none of the urls can be scraped: give full URLs such as https://example.com/docs")
    return FirecrawlOrder(
        JobKind.BATCH_SCRAPE,
        list(usable),
        invalid_urls=list(invalid),
        scrape_options=_checked_scrape_options(scrape_options),
    )


async def require_public_targets(order: FirecrawlOrder) -> None:
    """Raises `UsageError` for the first URL that leads to a private address, as far as can be told here."""
    try:
        await require_public(order.urls)
    except PrivateTarget as error:
        raise UsageError(
            f"{error}; CRAWLSCOPE_ALLOW_PRIVATE_TARGETS permits it, `crawlscope crawl` needs no permission"
        ) from None


def _checked_scrape_options(options: Options | None) -> Options | None:
    checked = _checked("scrape_options", options)
    formats = (checked or {}).get("formats")
    if isinstance(formats, list) and not any(_is_markdown(each) for each in formats):
        raise UsageError('scrape_options: formats must contain "markdown", which is what gets indexed')
    return checked


def _is_markdown(wanted: Any) -> bool:
    return (wanted.get("type") if isinstance(wanted, dict) else wanted) == "markdown"


def _checked(name: str, options: Options | None) -> Options | None:
    """None for empty ones."""
    if not options:
        return None
    if own := sorted(OWN_KEYS & options.keys()):
        raise UsageError(f"{name}: {', '.join(own)} cannot be given here; Crawlscope says that to Firecrawl")
    try:
        size = len(json.dumps(options, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        raise UsageError(
            f"{name}: holds what JSON in UTF-8 cannot say, such as NaN, or is too deep"
        ) from None
    if size > LARGEST_OPTIONS_BYTES:
        raise UsageError(f"{name}: {size:,} bytes are more than the {LARGEST_OPTIONS_BYTES:,} allowed")
    return options
