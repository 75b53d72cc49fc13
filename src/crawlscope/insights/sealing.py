"""When a crawl is sealed, and what is not certain about it all the same: pure rules over what is known.

A crawl is sealed when its end is known, its pages are settled and, where Firecrawl can be asked, it was
compared with Firecrawl after its end. The built-in crawler needs no comparison: it tells of its end after
its last page was taken in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crawlscope.core.vocabulary import Completeness, Engine, ReconcileState

Row = Mapping[Any, Any]
"""The columns of a row, by name."""

NAMED_AT_MOST = 3
UNANSWERED_CHECKS = 8
"""So many comparisons in a row without an answer, over some minutes: nobody should wait for the next."""
SEALING = frozenset(
    {Completeness.EXACT, Completeness.COMPARED, Completeness.FORGOTTEN, Completeness.AS_DELIVERED}
)
AS_FAR_AS_DELIVERED = "complete as far as was delivered"


@dataclass(frozen=True)
class Sealing:
    completeness: Completeness
    sealed: bool
    reservation: str | None
    """What is not certain, or missing; None where all is there, or not known yet."""


def sealing(session: Row, check: Row | None, asks_firecrawl: bool) -> Sealing:
    """`session` has the `engine` that crawls; `check` is its row of `reconciliations`."""
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
            return f"incomplete: {check['error']}{_named(check)}"
        case Completeness.UNCHECKED if check is not None and _is_unanswered(check):
            return f"{AS_FAR_AS_DELIVERED}; it could not be compared with Firecrawl: {check['error']}"
    return None


def _is_unanswered(check: Row) -> bool:
    return bool(check["state"] == ReconcileState.FAILING and check["failures"] >= UNANSWERED_CHECKS)


def _named(check: Row) -> str:
    urls = check["missing_urls"]
    if not urls:
        return ""
    left = check["missing"] - NAMED_AT_MOST
    more = f" and {left:,} more" if left > 0 else ""
    return f": {', '.join(urls[:NAMED_AT_MOST])}{more}"
