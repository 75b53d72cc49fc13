"""Whether a crawl is sealed and searchable, and its uncertainties: pure rules over database rows.

A crawl is sealed when its end is known, its pages are settled and, if a Firecrawl is configured, it was
compared with Firecrawl after its end. A crawl of the built-in crawler needs no comparison, because its end
comes after its last page was received.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crawlscope.core.vocabulary import Completeness, Engine, ReconcileState

Row = Mapping[Any, Any]
"""The columns of a row, by name."""

MAX_NAMED = 3
UNANSWERED_CHECKS = 8
"""Comparisons in a row without an answer, over some minutes, after which nobody should wait for the next."""
SEALING = frozenset(
    {Completeness.EXACT, Completeness.COMPARED, Completeness.FORGOTTEN, Completeness.AS_DELIVERED}
)
AS_FAR_AS_DELIVERED = "complete as far as was delivered"


@dataclass(frozen=True)
class Sealing:
    completeness: Completeness
    sealed: bool
    reservation: str | None
    """A sentence about missing or uncertain facts; None if there are none, or if it is not known yet."""


def sealing(session: Row, check: Row | None, asks_firecrawl: bool) -> Sealing:
    """`session` is a row of `crawl_sessions` with its `engine`; `check` is its row of `reconciliations`."""
    ended = session["completed_at"] is not None
    completeness = _completeness(session, ended, check, asks_firecrawl)
    sealed = ended and not session["pages_pending"] and completeness in SEALING
    return Sealing(completeness, sealed, _reservation(completeness, ended, check))


def _completeness(session: Row, ended: bool, check: Row | None, asks_firecrawl: bool) -> Completeness:
    if session["engine"] == Engine.BUILTIN:
        return Completeness.EXACT if ended else Completeness.OPEN
    found = check["state"] if check is not None and check["settled"] else None
    if found in (ReconcileState.EXPIRED, ReconcileState.UNKNOWN):
        return Completeness.FORGOTTEN
    if not ended:
        return Completeness.OPEN
    if found == ReconcileState.SETTLED:
        return Completeness.COMPARED
    if found == ReconcileState.INCOMPLETE:
        return Completeness.INCOMPLETE
    return Completeness.UNCHECKED if asks_firecrawl else Completeness.AS_DELIVERED


def _reservation(completeness: Completeness, ended: bool, check: Row | None) -> str | None:
    match completeness:
        case Completeness.AS_DELIVERED:
            return f"{AS_FAR_AS_DELIVERED}; not compared with Firecrawl"
        case Completeness.FORGOTTEN if ended:
            return f"{AS_FAR_AS_DELIVERED}; Firecrawl no longer knows this crawl"
        case Completeness.FORGOTTEN:
            return "its end is not known; Firecrawl no longer knows this crawl"
        case Completeness.INCOMPLETE:
            assert check is not None
            urls, left = check["missing_urls"], check["missing"] - MAX_NAMED
            more = f" and {left:,} more" if urls and left > 0 else ""
            named = f": {', '.join(urls[:MAX_NAMED])}" if urls else ""
            return f"incomplete: {check['error']}{named}{more}"
        case Completeness.UNCHECKED if (
            check is not None
            and check["state"] == ReconcileState.FAILING
            and check["failures"] >= UNANSWERED_CHECKS
        ):
            return f"{AS_FAR_AS_DELIVERED}; it could not be compared with Firecrawl: {check['error']}"
    return None


def searchable_at(session: Row) -> datetime | None:
    """When the last page settled, or the end of a crawl without pages; None until both are known."""
    if session["completed_at"] is None or session["pages_pending"]:
        return None
    at: datetime = session["last_settled_at"] or session["completed_at"]
    return at


def time_to_searchable_ms(session: Row) -> float | None:
    at = searchable_at(session)
    if at is None:
        return None
    began: datetime = session["initiated_at"] or session["started_at"]
    return max(0.0, (at - began).total_seconds() * 1000)
