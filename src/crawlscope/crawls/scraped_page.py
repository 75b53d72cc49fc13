"""A page as Firecrawl describes it, in an event or in its API's answers, read into a delivered page."""

from datetime import datetime
from typing import Any

from crawlscope.crawls.page_state import DROPPED_BY_CANCEL, Arrival, failure_code, failure_text
from crawlscope.crawls.pages import DeliveredPage
from crawlscope.database.values import storable
from crawlscope.vocabulary import PageState

NO_REASON = "Firecrawl gave no reason"


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
    code, words = _failure(status_code, failed, error or metadata.get("error"))
    markdown = _text_in(document, "markdown", "content")
    return DeliveredPage(
        source_url=asked_for,
        url=_text(metadata.get("url")) or asked_for,
        arrival=Arrival(code is None, pushed, received_at, webhook_id or ""),
        markdown=storable(markdown),
        html="" if markdown else storable(_text_in(document, "html", "rawHtml")),
        title=_text(metadata.get("title")) or _text(metadata.get("ogTitle")),
        language=_text(metadata.get("language")),
        status_code=status_code,
        failure=_failure_state(code),
        error_code=code,
        error=storable(words) if words else None,
    )


def failed_page(url: str, received_at: datetime, code: str, words: str) -> DeliveredPage:
    """A page that the errors API tells of."""
    url = storable(url)
    return DeliveredPage(
        source_url=url,
        url=url,
        arrival=Arrival(False, False, received_at, ""),
        failure=_failure_state(code),
        error_code=storable(code)[:100],
        error=storable(words),
    )


def source_url(document: dict[str, Any]) -> str | None:
    """The URL asked for, as far as the document names any."""
    metadata = document_metadata(document)
    return _text(metadata.get("sourceURL")) or _text(metadata.get("url")) or _text(document.get("url"))


def document_metadata(document: dict[str, Any]) -> dict[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _failure(status_code: int | None, failed: bool, error: object) -> tuple[str | None, str | None]:
    """Code and words; no code for a page that can be indexed."""
    if failed:
        return storable(failure_code(error)), failure_text(error) or NO_REASON
    if status_code and status_code >= 400:
        return f"http_{status_code}", f"the page answered with HTTP status {status_code}"
    return None, None


def _failure_state(code: str | None) -> PageState | None:
    if code is None:
        return None
    return PageState.CANCELLED if code == DROPPED_BY_CANCEL else PageState.FAILED


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
