"""Reads a delivery: Firecrawl's v0, v1 and v2 envelopes become one shape."""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID, uuid4

from pydantic_core import from_json, to_json

from crawlscope.core.compression import compress
from crawlscope.core.errors import UsageError
from crawlscope.core.values import hash_key, storable, storable_json
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.firecrawl.documents import scraped_page, source_url
from crawlscope.pages.causes import error_words
from crawlscope.pages.delivered import DeliveredPage
from crawlscope.sessions.fold import CrawlSeen, Ended, Fact, PageSeen

FAMILIES = {"crawl", "batch_scrape", "extract", "agent", "monitor"}
CRAWL_FAMILIES = {"crawl", "batch_scrape"}
MAX_ID_LENGTH = 255
MAX_EVENT_TYPE_LENGTH = 100
ENDS = {
    "completed": CrawlStatus.COMPLETED,
    "failed": CrawlStatus.FAILED,
    "cancelled": CrawlStatus.CANCELLED,
    "canceled": CrawlStatus.CANCELLED,
}
"""Events that end a crawl."""
WITHOUT_URL = "names no page URL"
_NUL_ESCAPE = rb"\u0000"
_BEGINNING_BYTES = 64


class UnreadableDelivery(UsageError):
    """The body is no JSON (HTTP 400)."""

    code = "unreadable"


class MalformedDelivery(UsageError):
    """The body is JSON, but no delivery (HTTP 422)."""

    code = "malformed"


@dataclass(frozen=True)
class Delivery:
    """One event; of an unknown type, nothing but that. All its texts can be stored in PostgreSQL."""

    event_type: str
    family: str
    """The part of the type before the dot."""
    action: str
    """The part of the type after the dot."""
    known: bool
    """Whether this version knows the type."""
    of_crawl: bool
    """Whether it is of a crawl or batch scrape, whose pages are indexed."""
    crawl_id: str = ""
    success: bool = True
    webhook_id: str | None = None
    documents: list[dict[str, Any]] = field(default_factory=list)
    """The page objects of `data`, whatever envelope they came in; only crawls and batches have any."""
    brings_pages: bool = False
    """Whether it is a page event, or v0's completed with the crawl's documents in it."""
    end: CrawlStatus | None = None
    """How the crawl has ended, if the event says so."""
    error: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveryContent:
    """A delivery's pages and facts. Pages are in the order of their URLs, so that two deliveries with the
    same pages cannot wait for each other."""

    pages: list[DeliveredPage]
    without_url: int
    """How many page objects name no URL."""
    facts: list[Fact]
    columns: dict[str, Any]
    """The ledger's columns that follow from the pages."""


def received(body: bytes, received_at: datetime) -> tuple[Delivery, DeliveryContent, dict[str, Any]]:
    """With the row of the ledger, or of unknown events. Raises as `read` does."""
    delivery = read(body)
    row = {"event_type": delivery.event_type, "received_at": received_at, "body": compress(body)}
    if delivery.known:
        row |= {
            "crawl_id": delivery.crawl_id,
            "identity": identity(delivery, body) or uuid4(),
            "webhook_id": delivery.webhook_id,
            "body_bytes": len(body),
        }
    else:
        row["identity"] = hash_key(delivery.event_type, body.hex())
    found = content_of(delivery, body, received_at)
    return delivery, found, row | (found.columns if delivery.known else {})


def read(body: bytes) -> Delivery:
    """Raises `UnreadableDelivery` or `MalformedDelivery`, which say where."""
    event = _json_object(body)
    event_type = event.get("type")
    if not isinstance(event_type, str) or not event_type:
        _malformed("type", "a non-empty string", event_type)
    family, _, action = event_type.partition(".")
    known, of_crawl = family in FAMILIES and bool(action), family in CRAWL_FAMILIES
    delivery = Delivery(event_type[:MAX_EVENT_TYPE_LENGTH], family, action, known, of_crawl)
    if not known:
        return delivery
    data = event.get("data") if of_crawl else None
    data = [] if data is None else [data] if isinstance(data, dict) else data
    if not isinstance(data, list):
        _malformed("data", "a list", data)
    documents = []
    for number, document in enumerate(data):
        if not isinstance(document, dict):
            _malformed(f"data[{number}]", "an object", document)
        content = document.get("content")  # v0 of newer servers sends `{content, source}`
        documents.append(content if isinstance(content, dict) else document)
    success, end, webhook_id = event.get("success") is not False, ENDS.get(action), event.get("webhookId")
    metadata = event.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        _malformed("metadata", "an object", metadata)
    return replace(
        delivery,
        crawl_id=_crawl_id(event),
        success=success,
        webhook_id=str(webhook_id) if webhook_id else None,
        documents=documents,
        brings_pages=of_crawl and (action == "page" or bool(documents)),
        end=CrawlStatus.FAILED if end is CrawlStatus.COMPLETED and not success else end,
        error=event.get("error"),
        metadata=metadata or {},
    )


def crawl_id_of(body: bytes) -> str | None:
    """The crawl of a delivery, whatever else may be wrong with it."""
    try:
        event = json.loads(body)
        return storable(_crawl_id(event)) if isinstance(event, dict) else None
    except (UsageError, ValueError, RecursionError):
        return None


def identity(delivery: Delivery, body: bytes) -> UUID | None:
    """Equal for deliveries of one event; None for one that cannot be distinguished from others like it.

    Newer Firecrawls send a `webhookId`. Otherwise the crawl, the event and the scrape identify it, or a
    failed page's URL and error. A failed page without a URL can be one of many.
    """
    if delivery.webhook_id:
        return hash_key("webhook", delivery.webhook_id)
    event = [delivery.crawl_id, delivery.event_type]
    if delivery.action != "page":
        return hash_key(*event)
    document = next(iter(delivery.documents), {})
    metadata = document.get("metadata")
    if scrape_id := metadata.get("scrapeId") if isinstance(metadata, dict) else None:
        return hash_key(*event, "scrape", str(scrape_id))
    if delivery.of_crawl:
        url = source_url(document)
        if url is None:
            return None
        if not delivery.success:
            return hash_key(*event, "failed", url, json.dumps(delivery.error, sort_keys=True))
    return hash_key(*event, "body", body.decode("utf-8", "replace"))


def content_of(delivery: Delivery, body: bytes, received_at: datetime) -> DeliveryContent:
    """The pages of a delivery and the facts about its crawl."""
    best: dict[str, DeliveredPage] = {}  # of several with one URL the last that brings something counts
    first_url, without_url = None, 0
    if delivery.brings_pages:
        without_url = 0 if delivery.documents else 1
        for document in delivery.documents:
            page = scraped_page(
                document,
                received_at,
                pushed=True,
                webhook_id=delivery.webhook_id,
                failed=delivery.action == "page" and not delivery.success,
                error=delivery.error,
            )
            if page is None:
                without_url += 1
                continue
            first_url = first_url or page.source_url
            known = best.get(page.source_url)
            if known is None or known.arrival <= page.arrival:
                best[page.source_url] = page
    facts: list[Fact] = [CrawlSeen(received_at, delivery.metadata, delivery.action)]
    if first_url:
        facts.append(PageSeen(received_at, first_url))
    if delivery.end:
        late = delivery.webhook_id is not None and delivery.action == "completed"
        facts.append(Ended(received_at, delivery.end, error_words(delivery.error), late))
    columns = {
        "pages": len(delivery.documents),
        "without_url": without_url,
        "note": WITHOUT_URL if delivery.brings_pages and not best else None,
    }
    pages = [best[url] for url in sorted(best)]
    if len(pages) == 1 and pages[0].markdown and not pages[0].failure:
        pages = [replace(pages[0], text_at=_text_at(body, pages[0].markdown))]
    return DeliveryContent(pages, without_url, facts, columns)


def _text_at(body: bytes, text: str) -> tuple[int, int] | None:
    """The place of this string in the body, as JavaScript or Python writes it."""
    for as_python in (False, True):
        written = json.dumps(text).encode() if as_python else to_json(text)
        begins = body.find(written[:_BEGINNING_BYTES])  # much faster than to look for the whole
        if begins >= 0 and not body.startswith(written, begins):
            begins = body.find(written)
        if begins >= 0:
            return begins, begins + len(written)
    return None


def _json_object(body: bytes) -> dict[str, Any]:
    """The object without NUL, lone surrogates and NaN, which PostgreSQL refuses."""
    try:
        value, reason = from_json(body, allow_inf_nan=False), ""
    except ValueError as error:
        reason = str(error)
    if reason or _NUL_ESCAPE in body:
        # Lone surrogates are valid JSON and real: JavaScript escapes a cut emoji like that.
        try:
            value = json.loads(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UnreadableDelivery(f"the body is not UTF-8: byte {error.start} is invalid") from None
        except (ValueError, RecursionError) as error:
            raise UnreadableDelivery(f"the body is not JSON: {reason or error}") from None
        try:
            value = from_json(storable_json(value))
        except (ValueError, RecursionError) as error:
            raise MalformedDelivery(f"the body is nested too deeply: {error}") from None
    if not isinstance(value, dict):
        _malformed("the body", "a JSON object", value)
    return value


def _crawl_id(event: dict[str, Any]) -> str:
    crawl_id = event.get("id")
    if crawl_id in (None, ""):
        crawl_id = event.get("jobId", crawl_id)
    if isinstance(crawl_id, int) and not isinstance(crawl_id, bool):
        crawl_id = str(crawl_id)
    if not isinstance(crawl_id, str) or not 0 < len(crawl_id) <= MAX_ID_LENGTH:
        _malformed("id", f"a string of 1 to {MAX_ID_LENGTH} characters (v0: jobId)", crawl_id)
    return crawl_id


def _malformed(where: str, expected: str, found: Any) -> NoReturn:
    kinds = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null"}
    kind = f"a string of {len(found)} characters" if isinstance(found, str) else kinds.get(type(found))
    raise MalformedDelivery(f"{where} must be {expected}, not {kind or 'a number'}")
