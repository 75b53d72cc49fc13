"""Changes that a watcher saw, and how long each took to become searchable."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select

from crawlscope.core.values import storable
from crawlscope.insights.queries import Rows
from crawlscope.insights.responses import Answer
from crawlscope.models import ChangeEvent


class ChangeRow(Answer):
    id: UUID
    watch_id: str | None
    watch_url: str
    detected_at: datetime
    """When the watcher says that it saw the change; when it told, where it does not say."""
    received_at: datetime
    diff_summary: str | None
    snapshot_url: str | None
    crawl_id: str | None
    """The crawl that fetches the page again; null before there is one."""
    rescrape_status: str | None
    rescrape_error: str | None
    indexed_at: datetime | None
    """When the new content was searchable."""
    change_to_searchable_ms: float | None
    """From `detected_at` to `indexed_at`."""
    metadata: dict[str, Any] | None
    """What else was sent."""


class ChangeListResponse(Answer):
    changes: list[ChangeRow]
    total: int


def changes(url: str | None = None) -> Rows:
    """Newest first. `url` is any part of the page's URL."""
    seconds = func.extract("epoch", ChangeEvent.indexed_at - ChangeEvent.detected_at)
    took_ms = case((seconds.is_not(None), func.greatest(0, seconds * 1000)))
    matching = select(
        ChangeEvent.id,
        ChangeEvent.watch_id,
        ChangeEvent.watch_url,
        ChangeEvent.detected_at,
        ChangeEvent.created_at.label("received_at"),
        ChangeEvent.diff_summary,
        ChangeEvent.snapshot_url,
        ChangeEvent.rescrape_job_id.label("crawl_id"),
        ChangeEvent.rescrape_status,
        ChangeEvent.rescrape_error,
        ChangeEvent.indexed_at,
        took_ms.label("change_to_searchable_ms"),
        ChangeEvent.extra_metadata.label("metadata"),
    ).order_by(ChangeEvent.detected_at.desc(), ChangeEvent.id.desc())
    return matching.where(ChangeEvent.watch_url.contains(storable(url), autoescape=True)) if url else matching
