"""The events of a crawl, in the shape of Firecrawl's v2 webhooks.

Identifiers follow from the crawl and the URL: a crawl run again after a crash sends recognisable duplicates.
"""

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from crawlscope.crawler.fetch import FetchedPage
from crawlscope.crawler.reading.markdown import PageText

Event = dict[str, Any]


class Events:
    """Writes the events of one crawl."""

    def __init__(self, crawl_id: str, metadata: Mapping[str, str]) -> None:
        self._crawl_id = crawl_id
        self._metadata = dict(metadata)

    def started(self) -> Event:
        return self._event("crawl.started")

    def completed(self) -> Event:
        return self._event("crawl.completed")

    def failed(self, error: str) -> Event:
        return self._event("crawl.failed", error=error)

    def cancelled(self) -> Event:
        return self._event("crawl.cancelled", error="the crawl was cancelled")

    def page(self, source_url: str, page: FetchedPage, text: PageText) -> Event:
        facts: dict[str, Any] = {
            "title": text.title,
            "description": text.description,
            "language": text.language,
            "sourceURL": source_url,
            "url": page.url,
            "statusCode": page.status_code,
            "contentType": page.content_type or None,
            "scrapeId": self._id("scrape", source_url),
        }
        known = {name: value for name, value in facts.items() if value is not None}
        return self._event("crawl.page", source_url, document={"markdown": text.markdown, "metadata": known})

    def failed_page(self, source_url: str, error: str, code: str | None = None) -> Event:
        document = {"metadata": {"sourceURL": source_url}}
        named = {"code": code, "message": error} if code else error
        return self._event("crawl.page", source_url, document=document, error=named)

    def _event(
        self, event_type: str, url: str = "", *, document: Event | None = None, error: object = None
    ) -> Event:
        event: Event = {
            "success": error is None,
            "type": event_type,
            "id": self._crawl_id,
            # A page that fails in one run and succeeds in the next is news, not a duplicate.
            "webhookId": self._id(event_type if error is None else f"{event_type} failed", url),
            "data": [] if document is None else [document],
            "metadata": self._metadata,
        }
        if error is not None:
            event["error"] = error
        return event

    def _id(self, kind: str, url: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"crawlscope:{self._crawl_id}:{kind}:{url}"))
