"""What a delivery says: Firecrawl's v0, v1 and v2 envelopes read into one shape."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NoReturn, cast
from uuid import UUID

from pydantic_core import from_json

from crawlscope.core.errors import UsageError
from crawlscope.core.values import hash_key, storable, storable_json
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.firecrawl.documents import document_metadata, scraped_page, source_url
from crawlscope.pages.causes import error_words
from crawlscope.pages.delivered import DeliveredPage
from crawlscope.sessions.fold import Ended, Fact, Heard, PageSeen

FAMILIES = {"crawl", "batch_scrape", "extract", "agent", "monitor"}
CRAWL_FAMILIES = {"crawl", "batch_scrape"}
LONGEST_ID = 255
ENDS = {
    "completed": CrawlStatus.COMPLETED,
    "failed": CrawlStatus.FAILED,
    "cancelled": CrawlStatus.CANCELLED,
    "canceled": CrawlStatus.CANCELLED,
}
"""Events that end a crawl."""


class UnreadableDelivery(UsageError):
    """The body is no JSON (HTTP 400)."""

    code = "unreadable"


class MalformedDelivery(UsageError):
    """The body is JSON, but no delivery (HTTP 422)."""

    code = "malformed"


@dataclass(frozen=True)
class Delivery:
    """One event; of a type that nobody knows, nothing but that."""

    event_type: str
    crawl_id: str = ""
    success: bool = True
    webhook_id: str | None = None
    documents: list[dict[str, Any]] = field(default_factory=list)
    """The page objects of `data`, whatever envelope they came in; only crawls and batches have any."""
    error: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return self.event_type.split(".", 1)[0]

    @property
    def action(self) -> str:
        return self.event_type.partition(".")[2]

    @property
    def known(self) -> bool:
        return self.family in FAMILIES and bool(self.action)

    @property
    def of_crawl(self) -> bool:
        """Of a crawl or batch, whose pages are indexed."""
        return self.family in CRAWL_FAMILIES

    @property
    def brings_pages(self) -> bool:
        """Page events, and v0's completed with the crawl's documents in it."""
        return self.of_crawl and (self.action == "page" or bool(self.documents))


@dataclass(frozen=True)
class Brought:
    """What a delivery brings; pages in the order of their URLs, so that two deliveries with the same pages
    cannot wait for each other."""

    pages: list[DeliveredPage]
    without_url: int
    """How many page objects name no URL."""
    facts: list[Fact]


def read(body: bytes) -> Delivery:
    """Raises `UnreadableDelivery` or `MalformedDelivery`, which say where."""
    return _delivery(_object(_json(body)))


def crawl_id_of(body: bytes) -> str | None:
    """The crawl that a delivery speaks of, whatever else may be wrong with it."""
    try:
        return _crawl_id(_object(json.loads(body)))
    except (UsageError, ValueError, RecursionError):
        return None


def identity(delivery: Delivery, body: bytes) -> UUID | None:
    """Equal for deliveries that are one; None for one that cannot be told from others like it.

    Newer Firecrawls send a `webhookId`; otherwise the crawl, the event and the scrape (for a failed page
    its URL and error) tell. A page that names neither can be one of many.
    """
    if delivery.webhook_id:
        return hash_key("webhook", delivery.webhook_id)
    event = [delivery.crawl_id, delivery.event_type]
    if delivery.action != "page":
        return hash_key(*event)
    page = _told_by(delivery, body)
    return hash_key(*event, *page) if page else None


def _told_by(delivery: Delivery, body: bytes) -> list[str]:
    """What tells a page event from others of its crawl; nothing where it can be one of many."""
    document = next(iter(delivery.documents), {})
    if scrape_id := document_metadata(document).get("scrapeId"):
        return ["scrape", str(scrape_id)]
    if delivery.of_crawl:
        url = source_url(document)
        if url is None:
            return []
        if not delivery.success:
            return ["failed", url, json.dumps(delivery.error, sort_keys=True)]
    return ["body", body.decode("utf-8", "replace")]


def brought(delivery: Delivery, received_at: datetime) -> Brought:
    """What the delivery says of its crawl and of the crawl's pages."""
    found = list(_pages(delivery, received_at)) if delivery.brings_pages else []
    located = [page for page in found if page is not None]
    # Of several with one URL the last that brings something counts.
    once = {page.source_url: page for page in sorted(located, key=lambda page: page.arrival)}
    return Brought(
        pages=[once[url] for url in sorted(once)],
        without_url=len(found) - len(located),
        facts=_facts(delivery, received_at, located[0].source_url if located else None),
    )


def _pages(delivery: Delivery, received_at: datetime) -> Iterator[DeliveredPage | None]:
    """The pages of the delivery; None for each that names no URL."""
    if delivery.action == "page" and not delivery.documents:
        yield None
    page_failed = delivery.action == "page" and not delivery.success
    for document in delivery.documents:
        yield scraped_page(
            document,
            received_at,
            pushed=True,
            webhook_id=delivery.webhook_id,
            failed=page_failed,
            error=delivery.error,
        )


def _facts(delivery: Delivery, at: datetime, first_url: str | None) -> list[Fact]:
    facts: list[Fact] = [Heard(at, delivery.metadata, delivery.action)]
    if first_url:
        facts.append(PageSeen(at, first_url))
    if status := end_of(delivery):
        late = delivery.webhook_id is not None and delivery.action == "completed"
        facts.append(Ended(at, status, error_words(delivery.error), late))
    return facts


def end_of(delivery: Delivery) -> CrawlStatus | None:
    """How the delivery says that its crawl has ended, if it does."""
    status = ENDS.get(delivery.action)
    return CrawlStatus.FAILED if status is CrawlStatus.COMPLETED and not delivery.success else status


def _json(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        reason = str(error)
    # Lone surrogates are valid JSON and real: JavaScript escapes a cut emoji like that.
    try:
        value = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnreadableDelivery(f"the body is not UTF-8: byte {error.start} is invalid") from None
    except (ValueError, RecursionError):
        raise UnreadableDelivery(f"the body is not JSON: {reason}") from None
    try:
        return from_json(storable_json(value))
    except (ValueError, RecursionError) as error:
        raise MalformedDelivery(f"the body is nested too deeply: {error}") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedDelivery(f"the body must be a JSON object, not {_kind(value)}")
    return value


def _delivery(body: dict[str, Any]) -> Delivery:
    event_type = body.get("type")
    if not isinstance(event_type, str) or not event_type:
        _malformed("type", "a non-empty string", event_type)
    delivery = Delivery(storable(event_type)[:100])
    if not delivery.known:
        return delivery
    webhook_id = body.get("webhookId")
    return replace(
        delivery,
        crawl_id=_crawl_id(body),
        success=body.get("success") is not False,
        webhook_id=storable(str(webhook_id)) if webhook_id else None,
        documents=_documents(body.get("data")) if delivery.of_crawl else [],
        error=body.get("error"),
        metadata=_optional_object(body, "metadata"),
    )


def _crawl_id(body: dict[str, Any]) -> str:
    crawl_id = body.get("id")
    if crawl_id in (None, ""):
        crawl_id = body.get("jobId", crawl_id)
    if isinstance(crawl_id, int) and not isinstance(crawl_id, bool):
        crawl_id = str(crawl_id)
    if not isinstance(crawl_id, str) or not 0 < len(crawl_id) <= LONGEST_ID:
        _malformed("id", f"a string of 1 to {LONGEST_ID} characters (v0: jobId)", crawl_id)
    return storable(crawl_id)


def _documents(data: Any) -> list[dict[str, Any]]:
    """`data` as a list of documents; v0 of newer servers nests each as `{content, source}`."""
    if data is None:
        return []
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list):
        _malformed("data", "a list", data)
    return [_unnested(each, number) for number, each in enumerate(data)]


def _unnested(document: Any, number: int) -> dict[str, Any]:
    if not isinstance(document, dict):
        _malformed(f"data[{number}]", "an object", document)
    content = document.get("content")
    return content if isinstance(content, dict) else document


def _optional_object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _malformed(name, "an object", value)
    return cast(dict[str, Any], from_json(storable_json(value)))


def _malformed(where: str, expected: str, found: Any) -> NoReturn:
    raise MalformedDelivery(f"{where} must be {expected}, not {_kind(found)}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    return names.get(type(value), "a number")
