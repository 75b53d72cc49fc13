"""Reads a page as Firecrawl describes it, in an event or an answer of its API, into a delivered page."""

import re
from datetime import datetime
from typing import Any

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
    """None for a document that names no URL. `error` is Firecrawl's, if the scrape `failed`.

    The document's texts must be ones that PostgreSQL can hold.
    """
    asked_for = source_url(document)
    if asked_for is None:
        return None
    metadata = document["metadata"] if isinstance(document.get("metadata"), dict) else {}
    status_code = _status_code(metadata)
    cause = None
    if failed:
        cause = cause_of(error or metadata.get("error"))
    elif status_code and status_code >= 400:
        cause = Cause(f"http_{status_code}", f"the page answered with HTTP status {status_code}", None)
    markdown = _text_in(document, "markdown", "content")
    html = "" if markdown else _text_in(document, "html")
    if not markdown and not _WORD.search(_TAG.sub("", html)):
        # The part that Firecrawl took for the page's main part has no word; the whole page may have some.
        html = _text_in(document, "rawHtml") or html
    return DeliveredPage(
        source_url=asked_for,
        url=_text(metadata.get("url")) or asked_for,
        arrival=Arrival(
            cause is None, precision(cause.code) if cause else 0, pushed, received_at, webhook_id or ""
        ),
        markdown=markdown,
        html=html,
        title=_text(metadata.get("title")) or _text(metadata.get("ogTitle")),
        language=_text(metadata.get("language")),
        status_code=status_code,
        **(_outcome(cause) if cause else {}),
    )


def failed_page(
    url: str, asked_at: datetime, cause: Cause, failed_at: datetime | None = None
) -> DeliveredPage:
    """A failed page as the errors API gives it, and when it failed by Firecrawl's clock. It arrived at
    `asked_at` at the latest."""
    return DeliveredPage(
        source_url=url,
        url=url,
        arrival=Arrival(False, precision(cause.code), False, min(failed_at or asked_at, asked_at), ""),
        failed_at=failed_at,
        **_outcome(cause),
    )


def source_url(document: dict[str, Any]) -> str | None:
    """The URL that was asked for, as far as the document names any."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return _text(document.get("url"))
    return _text(metadata.get("sourceURL")) or _text(metadata.get("url")) or _text(document.get("url"))


def _outcome(cause: Cause) -> dict[str, Any]:
    dropped = cause.code == DROPPED_BY_CANCEL
    return {
        "failure": PageState.CANCELLED if dropped else PageState.FAILED,
        "error_code": cause.code,
        "error": cause.words,
        "error_detail": cause.detail or None,
    }


def _text_in(document: dict[str, Any], *names: str) -> str:
    """The first of these fields that is not blank."""
    for name in names:
        text = document.get(name)
        if isinstance(text, str) and text and not text.isspace():
            return text
    return ""


def _status_code(metadata: dict[str, Any]) -> int | None:
    value = metadata.get("statusCode", metadata.get("pageStatusCode"))
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    return value if isinstance(value, int) and 0 < value < 1000 else None


def _text(value: Any) -> str | None:
    """Meta tags can be numbers or lists; the first string counts."""
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, str)), None)
    return value.strip() or None if isinstance(value, str) else None
