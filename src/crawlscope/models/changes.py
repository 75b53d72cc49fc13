"""Changes of watched pages."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, now


class ChangeEvent(Base):
    """A change of a page that changedetection.io reported, with its rescrape."""

    __tablename__ = "change_events"
    __table_args__ = (
        Index(
            "ix_change_events_rescrape_status",
            "rescrape_status",
            postgresql_where=text("rescrape_status IN ('waiting', 'running')"),
        ),
    )

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    watch_id: Mapped[str | None] = mapped_column(index=True)
    watch_url: Mapped[str]
    detected_at: Mapped[datetime] = mapped_column(index=True, server_default=func.now())
    diff_summary: Mapped[str | None]
    snapshot_url: Mapped[str | None]
    rescrape_job_id: Mapped[str | None]
    """The `crawl_id` of the rescrape."""
    rescrape_status: Mapped[str | None] = mapped_column(String(50))
    """A `vocabulary.RescrapeStatus`, at the end the state of the page."""
    rescrape_error: Mapped[str | None]
    next_try_at: Mapped[datetime] = now()
    """The time of the next request to Firecrawl after an outage."""
    indexed_at: Mapped[datetime | None]
    identity: Mapped[UUID | None] = mapped_column(index=True)
    """Equal for notifications that may be duplicates."""
    extra_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    created_at: Mapped[datetime] = now()
