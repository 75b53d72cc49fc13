"""A requested crawl, in one shape for both crawlers, and the checks that it has to pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crawlscope.core.errors import UsageError
from crawlscope.core.settings import is_web_address
from crawlscope.crawls.schemas import MAX_BATCH_URLS
from crawlscope.firecrawl.schemas import JobKind

MAX_URL_LENGTH = 2_048
MAX_OPTIONS_BYTES = 64 * 1024
OWN_KEYS = frozenset(
    {"url", "urls", "limit", "webhook", "scrapeOptions", "scrape_options", "appendToId", "ignoreInvalidURLs"}
)
"""Options that Crawlscope itself sets."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class RequestedCrawl:
    """A crawl that follows links from its one URL, or a batch scrape of its URLs and no others."""

    kind: JobKind
    urls: Sequence[str]
    limit: int | None = None
    """Maximum number of pages."""
    allow_private: bool = False
    """Whether private addresses may be crawled."""
    scrape_options: Options | None = None
    crawl_options: Options | None = None
    invalid_urls: Sequence[str] = ()
    """Given strings that are no usable URLs."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Fields that the crawl's events echo besides the standard ones, such as `retry_of`."""

    @property
    def url(self) -> str:
        """The URL that names the crawl."""
        return self.urls[0]


def crawl_request(
    url: str,
    limit: int | None = None,
    scrape_options: Options | None = None,
    crawl_options: Options | None = None,
    *,
    allow_private: bool = False,
) -> RequestedCrawl:
    """Raises `UsageError` if it cannot be crawled."""
    return RequestedCrawl(
        JobKind.CRAWL,
        [check_target(url)],
        limit,
        allow_private,
        scrape_options=_checked_options("scrape_options", scrape_options),
        crawl_options=_checked_options("crawl_options", crawl_options),
    )


def batch_request(
    urls: Sequence[str],
    scrape_options: Options | None = None,
    *,
    allow_private: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> RequestedCrawl:
    """Leaves out repeated URLs. Raises `UsageError` if it cannot be scraped."""
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
    return RequestedCrawl(
        JobKind.BATCH_SCRAPE,
        list(usable),
        allow_private=allow_private,
        scrape_options=_checked_options("scrape_options", scrape_options),
        invalid_urls=list(invalid),
        metadata=metadata or {},
    )


def check_target(url: str) -> str:
    """The URL without surrounding blanks. Raises `UsageError` if it cannot be crawled."""
    url = url.strip()
    if len(url) > MAX_URL_LENGTH:
        raise UsageError(f"the URL to crawl is longer than {MAX_URL_LENGTH} characters")
    if not is_web_address(url):
        raise UsageError(f"cannot crawl {url[:100]!r}: give a full URL such as https://example.com/docs")
    return url


def _checked_options(name: str, options: Options | None) -> Options | None:
    """None for empty ones."""
    if not options:
        return None
    if own := sorted(OWN_KEYS & options.keys()):
        raise UsageError(f"{name}: {', '.join(own)} cannot be given here; Crawlscope sets that itself")
    try:
        size = len(json.dumps(options, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        raise UsageError(
            f"{name}: holds what JSON in UTF-8 cannot say, such as NaN, or is too deep"
        ) from None
    if size > MAX_OPTIONS_BYTES:
        raise UsageError(f"{name}: {size:,} bytes are more than the {MAX_OPTIONS_BYTES:,} allowed")
    formats = options.get("formats") if name == "scrape_options" else None
    if isinstance(formats, list):
        names = [each.get("type") if isinstance(each, dict) else each for each in formats]
        if "markdown" not in names:
            raise UsageError('scrape_options: formats must contain "markdown", the format that is indexed')
    return options
