"""A flight recorder for crawls: every page from the crawler's webhook to the search index.

Programs use a service through `connect`:

    async with crawlscope.connect() as service:
        await service.index("https://wiki.example.com/on-call", "# On call")
        found = await service.search("who is on call")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crawlscope.api.client import CrawlReport, ServiceClient
    from crawlscope.api.connect import connect
    from crawlscope.core.errors import (
        CrawlscopeError,
        NotFoundError,
        ServiceUnavailable,
        SettingsError,
        UsageError,
    )
    from crawlscope.indexing.schemas import DocumentIndexed
    from crawlscope.insights.schemas import CrawlMetricsResponse, ExportedPage, PageListResponse
    from crawlscope.search.schemas import SearchFilters, SearchResponse

    __version__: str

__all__ = [
    "CrawlMetricsResponse",
    "CrawlReport",
    "CrawlscopeError",
    "DocumentIndexed",
    "ExportedPage",
    "NotFoundError",
    "PageListResponse",
    "SearchFilters",
    "SearchResponse",
    "ServiceClient",
    "ServiceUnavailable",
    "SettingsError",
    "UsageError",
    "connect",
]

_HOMES = ("core.errors", "search.schemas", "insights.schemas", "api.connect", "api.client")


def __getattr__(name: str) -> Any:
    """Imported when needed: every process imports this package, and few need the client."""
    if name == "__version__":
        return import_module("importlib.metadata").version("crawlscope")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = (vars(import_module(f"crawlscope.{home}")) for home in _HOMES)
    return next(home[name] for home in homes if name in home)
