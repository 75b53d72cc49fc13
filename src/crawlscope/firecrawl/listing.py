"""A crawl's documents as Firecrawl returns them: page after page, in its order, some of them repeatedly."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

from crawlscope.firecrawl.schemas import JobStatus, StatusPage

_MAX_PAGES = 10_000

Document = dict[str, Any]
FetchPage = Callable[[str], Awaitable[StatusPage]]
"""By the query of the page's URL, empty for the first one."""


class Listing:
    """Iterate over it, once: each step is one request and yields the documents that no earlier step did.

    It ends where a page of results brings nothing new: older servers repeat the first part of a large result
    for ever, and after a cancel `next` never ends.
    """

    def __init__(self, fetch: FetchPage) -> None:
        self._fetch = fetch
        self._seen: set[bytes] = set()
        self.status: JobStatus | None = None
        """As of the last page of results; None before the first one."""

    @property
    def count(self) -> int:
        """Documents so far."""
        return len(self._seen)

    async def __aiter__(self) -> AsyncIterator[list[Document]]:
        query = ""
        for _ in range(_MAX_PAGES):
            page = self.status = await self._fetch(query)
            new = []
            for document in page.documents:
                identity = _identity(document)
                if identity not in self._seen:
                    self._seen.add(identity)
                    new.append(document)
            if new:
                yield new
            if not page.next or not new:
                return
            query = page.next.partition("#")[0].partition("?")[2]


def _identity(document: Document) -> bytes:
    """The scrape that it came from; the same URL twice in a batch is two scrapes."""
    metadata = document.get("metadata")
    scrape_id = metadata.get("scrapeId") if isinstance(metadata, dict) else None
    identity: Any = [scrape_id, metadata.get("sourceURL")] if scrape_id and metadata else document
    return sha256(json.dumps(identity, sort_keys=True).encode()).digest()
