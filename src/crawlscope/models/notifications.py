"""Notifications of crawls, with their delivery."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Boolean, Index, String, UniqueConstraint, false, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, count, crawl_reference, now


class Notifying(Base):
    """The start of notifications: one row while `NOTIFY_URL` is set."""

    __tablename__ = "notifying"

    only: Mapped[bool] = mapped_column(Boolean(), primary_key=True, server_default=true())
    """Always true, so that there is at most one row."""
    since: Mapped[datetime] = now()


class Notification(Base):
    """A notification for `NOTIFY_URL` about a crawl, with its delivery."""

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
    """Each attempt sends it as `webhook-id`."""
    crawl_id: Mapped[str] = crawl_reference()
    event_type: Mapped[str] = mapped_column(String(50))
    settled_at: Mapped[datetime | None]
    """The time at which the crawl's last page settled. The same type is sent again only after another page
    settled."""
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    attempts: Mapped[int] = count()
    next_attempt_at: Mapped[datetime] = now()
    attempted_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    """The HTTP status of the last attempt. Null without an answer."""
    last_error: Mapped[str | None]
    dead: Mapped[bool] = mapped_column(server_default=false())
    """Whether the notification was given up. A client can resend it."""
