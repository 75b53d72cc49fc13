"""A crawl's documents as Firecrawl hands them out: page after page, in its order, sometimes over again."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

from crawlscope.firecrawl.schemas import JobStatus, StatusPage

_MOST_PAGES = 10_000

Document = dict[str, Any]
FetchPage = Callable[[str], Awaitable[StatusPage]]
"""By the query of the page's URL, empty for the first one."""


class Listing:
    """Iterate over it, once: each step is one request and gives the documents that no earlier step gave.

    It ends where a page of results brings nothing new: older servers repeat the first part of a large result
    for ever, and after a cancel `next` never ends.
    """

    def __init__(self, fetch: FetchPage) -> None:
        self._fetch = fetch
        self._seen: set[bytes] = set()
        self.status: JobStatus | None = None
        """As last said; None before the first page of results."""

    @property
    def count(self) -> int:
        """Documents so far."""
        return len(self._seen)

    async def __aiter__(self) -> AsyncIterator[list[Document]]:
        query = ""
        for _ in range(_MOST_PAGES):
            page = self.status = await self._fetch(query)
            new = [document for document in page.documents if self._is_new(document)]
            if new:
                yield new
            if not page.next:
                return
            if not new:
                return
            query = page.next.partition("#")[0].partition("?")[2]

    def _is_new(self, document: Document) -> bool:
        known = len(self._seen)
        self._seen.add(_identity(document))
        return len(self._seen) > known


def _identity(document: Document) -> bytes:
    """The scrape it came from; the same URL twice in a batch is two scrapes."""
    metadata = document.get("metadata")
    scrape_id = metadata.get("scrapeId") if isinstance(metadata, dict) else None
    told: Any = [scrape_id, metadata.get("sourceURL")] if scrape_id and metadata else document
    return sha256(json.dumps(told, sort_keys=True).encode()).digest()
