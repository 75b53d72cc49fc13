"""What arrived at the webhook endpoint."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Identity, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, count, crawl_reference, now


class Delivery(Base):
    """A webhook delivery as it came."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("crawl_id", "identity"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = crawl_reference()
    identity: Mapped[UUID]
    """A hash of what makes this delivery the same as another."""
    event_type: Mapped[str] = mapped_column(String(100))
    webhook_id: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(index=True)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The raw body, zlib-compressed; dropped when its time is over."""
    body_bytes: Mapped[int]
    pages: Mapped[int] = count()
    without_url: Mapped[int] = count()
    """How many of its pages name no URL."""
    facts: Mapped[list[dict[str, Any]]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """What it says of the crawl's life; see `sessions.fold`. Outlives the body."""
    note: Mapped[str | None]
    """What was odd about it."""


class UnknownEvent(Base):
    """Deliveries of a type that is not known yet, kept for the day when it is."""

    __tablename__ = "unknown_events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    identity: Mapped[UUID] = mapped_column(unique=True)
    event_type: Mapped[str]
    received_at: Mapped[datetime] = now()
    body: Mapped[bytes] = mapped_column(LargeBinary)
