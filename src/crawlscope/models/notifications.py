"""Notifications of crawls, and how far each was delivered."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Boolean, Index, String, UniqueConstraint, false, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, count, crawl_reference, now


class Notifying(Base):
    """Since when facts are told to `NOTIFY_URL`: one row while that is set."""

    __tablename__ = "notifying"

    only: Mapped[bool] = mapped_column(Boolean(), primary_key=True, server_default=true())
    """Always true: there is one row at most."""
    since: Mapped[datetime] = now()


class Notification(Base):
    """A fact about a crawl that is told to `NOTIFY_URL`, and how far that has come."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("crawl_id", "event_type", "settled_at", postgresql_nulls_not_distinct=True),
        Index(
            "ix_notifications_next_attempt_at",
            "next_attempt_at",
            postgresql_where=text("delivered_at IS NULL AND NOT dead"),
        ),
    )

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    """Sent as `webhook-id`, the same with each attempt."""
    crawl_id: Mapped[str] = crawl_reference()
    event_type: Mapped[str] = mapped_column(String(50))
    settled_at: Mapped[datetime | None]
    """When the crawl's last page had settled: the same fact is told again only after another one has."""
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    attempts: Mapped[int] = count()
    next_attempt_at: Mapped[datetime] = now()
    attempted_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    """The HTTP status of the last attempt; null where none came."""
    last_error: Mapped[str | None]
    dead: Mapped[bool] = mapped_column(server_default=false())
    """Given up, unless somebody asks for it to be sent again."""
