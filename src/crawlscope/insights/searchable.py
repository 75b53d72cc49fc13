"""When a crawl was searchable, and how long that took: pure rules over the columns of its session."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Session = Mapping[Any, Any]
"""The columns of a row, by name."""


def searchable_at(session: Session) -> datetime | None:
    """A crawl without any page is searchable, for what it is worth, when it ends. None for an open one."""
    if session["completed_at"] is None or session["pages_pending"]:
        return None
    at: datetime = session["last_settled_at"] or session["completed_at"]
    return at


def time_to_searchable_ms(session: Session) -> float | None:
    at = searchable_at(session)
    if at is None:
        return None
    began: datetime = session["initiated_at"] or session["started_at"]
    return max(0.0, (at - began).total_seconds() * 1000)
