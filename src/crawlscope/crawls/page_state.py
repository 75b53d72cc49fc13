"""How a page's state changes and what it adds to its crawl's counts: pure rules, no I/O."""

from dataclasses import dataclass
from datetime import datetime

from crawlscope.vocabulary import PageState

DROPPED_BY_CANCEL = "crawl_cancelled"


@dataclass(frozen=True, order=True)
class Arrival:
    """One delivery of a page, as far as it decides which of several wins: the greater one.

    A success beats a failure; of two alike the one received last, then the greater webhook id.
    """

    usable: bool
    """Whether it brought content to index, not a failure."""
    received_at: datetime
    webhook_id: str


@dataclass(frozen=True)
class Counts:
    """What pages add to their crawl: the names are the session's columns."""

    total_pages: int = 0
    pages_indexed: int = 0
    pages_failed: int = 0
    pages_pending: int = 0
    pages_unchanged: int = 0
    pages_empty: int = 0
    pages_cancelled: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value - getattr(other, name) for name, value in vars(self).items()})


def counts_of(state: PageState | None) -> Counts:
    """What one page in this state counts for; None is a page that does not exist yet."""
    if state is None:
        return Counts()
    return Counts(
        total_pages=int(state.succeeded or state is PageState.FAILED),
        pages_indexed=int(state.succeeded),
        pages_failed=int(state is PageState.FAILED),
        pages_pending=int(not state.settled),
        pages_unchanged=int(state is PageState.UNCHANGED),
        pages_empty=int(state is PageState.EMPTY),
        pages_cancelled=int(state is PageState.CANCELLED),
    )


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
