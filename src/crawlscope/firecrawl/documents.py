"""A page as Firecrawl describes it, in an event or in its API's answers, read into a delivered page."""

import re
from datetime import datetime
from typing import Any

from crawlscope.core.values import storable
from crawlscope.core.vocabulary import PageState
from crawlscope.pages.causes import DROPPED_BY_CANCEL, Cause, cause_of, precision
from crawlscope.pages.delivered import Arrival, DeliveredPage

_TAG = re.compile(r"<[^<>]*>")
_WORD = re.compile(r"[^\W_]")


def scraped_page(
    document: dict[str, Any],
    received_at: datetime,
    *,
    pushed: bool,
    webhook_id: str | None = None,
    failed: bool = False,
    error: object = None,
) -> DeliveredPage | None:
    """None for a document that names no URL. `error` is Firecrawl's, where the scrape `failed`."""
    asked_for = source_url(document)
    if asked_for is None:
        return None
    metadata = document_metadata(document)
    status_code = _status_code(metadata)
    cause = _failure(status_code, failed, error or metadata.get("error"))
    markdown = _text_in(document, "markdown", "content")
    return DeliveredPage(
        source_url=asked_for,
        url=_text(metadata.get("url")) or asked_for,
        arrival=_arrival(cause, pushed, received_at, webhook_id or ""),
        markdown=storable(markdown),
        html="" if markdown else storable(_html_of(document)),
        title=_text(metadata.get("title")) or _text(metadata.get("ogTitle")),
        language=_text(metadata.get("language")),
        status_code=status_code,
        **_outcome(cause),
    )


def failed_page(
    url: str, asked_at: datetime, cause: Cause, failed_at: datetime | None = None
) -> DeliveredPage:
    """A page that the errors API tells of, and when it failed by Firecrawl's clock; it arrived before that
    was asked."""
    url = storable(url)
    return DeliveredPage(
        source_url=url,
        url=url,
        arrival=_arrival(cause, False, min(failed_at or asked_at, asked_at), ""),
        failed_at=failed_at,
        **_outcome(cause),
    )


def source_url(document: dict[str, Any]) -> str | None:
    """The URL asked for, as far as the document names any."""
    metadata = document_metadata(document)
    return _text(metadata.get("sourceURL")) or _text(metadata.get("url")) or _text(document.get("url"))


def document_metadata(document: dict[str, Any]) -> dict[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _failure(status_code: int | None, failed: bool, error: object) -> Cause | None:
    """None for a page that can be indexed."""
    if failed:
        return cause_of(error)
    if status_code and status_code >= 400:
        return Cause(f"http_{status_code}", f"the page answered with HTTP status {status_code}", None)
    return None


def _arrival(cause: Cause | None, pushed: bool, at: datetime, webhook_id: str) -> Arrival:
    tells = precision(cause.code) if cause else 0
    return Arrival(cause is None, tells, pushed, at, webhook_id)


def _outcome(cause: Cause | None) -> dict[str, Any]:
    if cause is None:
        return {}
    dropped = cause.code == DROPPED_BY_CANCEL
    return {
        "failure": PageState.CANCELLED if dropped else PageState.FAILED,
        "error_code": storable(cause.code),
        "error": storable(cause.words),
        "error_detail": storable(cause.detail) if cause.detail else None,
    }


def _html_of(document: dict[str, Any]) -> str:
    """As it came, where the part that Firecrawl took for the main one has no word."""
    html = _text_in(document, "html")
    return html if _WORD.search(_TAG.sub("", html)) else _text_in(document, "rawHtml") or html


def _text_in(document: dict[str, Any], *names: str) -> str:
    """The first of these fields with more than blanks in it."""
    texts = (document.get(name) for name in names)
    return next((text for text in texts if isinstance(text, str) and not text.isspace() and text), "")


def _status_code(metadata: dict[str, Any]) -> int | None:
    value = metadata.get("statusCode", metadata.get("pageStatusCode"))
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    return value if isinstance(value, int) and 0 < value < 1000 else None


def _text(value: Any) -> str | None:
    """Meta tags can be numbers or lists; the first string counts."""
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, str)), None)
    return storable(value).strip() or None if isinstance(value, str) else None
