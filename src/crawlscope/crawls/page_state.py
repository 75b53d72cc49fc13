"""Which of several deliveries of a page wins, and what its failure is called: pure rules, no I/O."""

from dataclasses import dataclass
from datetime import datetime

DROPPED_BY_CANCEL = "crawl_cancelled"


@dataclass(frozen=True, order=True)
class Arrival:
    """One delivery of a page, as far as it decides which of several wins: the greater one.

    A success beats a failure, what was delivered beats what was fetched from the crawler's API; of two alike
    the one received last wins, then the greater webhook id.
    """

    usable: bool
    """Whether it brought content to index, not a failure."""
    pushed: bool
    """Whether it was delivered, not fetched."""
    received_at: datetime
    webhook_id: str


def failure_code(error: object) -> str:
    """A stable code for a failure as Firecrawl words it: a text, or an object with its own code."""
    if isinstance(error, dict):
        code = error.get("code")
        return str(code).lower()[:100] if code else "scrape_failed"
    text = str(error or "").lower()
    if "parent crawl or batch scrape was cancelled" in text:
        return DROPPED_BY_CANCEL
    if "timed out" in text or "timeout" in text:
        return "scrape_timeout"
    if "external_link" in text:
        return "external_link"
    if "robots" in text:
        return "robots_blocked"
    return "scrape_failed"


def failure_text(error: object) -> str | None:
    """The failure in words; an error object's message or code."""
    if isinstance(error, dict):
        words = error.get("message") or error.get("error") or error.get("code")
        return str(words) if words else None
    return str(error) if error else None
