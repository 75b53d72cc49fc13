"""Deliveries to the webhook endpoint."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Identity, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, count, crawl_reference, now


class Delivery(Base):
    """A webhook delivery."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("crawl_id", "identity"),
        Index(
            "ix_deliveries_received_at_with_body",
            "received_at",
            postgresql_where=text("body IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = crawl_reference()
    identity: Mapped[UUID]
    """A hash of the identifying fields. Equal deliveries have equal hashes."""
    event_type: Mapped[str] = mapped_column(String(100))
    webhook_id: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(index=True)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The raw body, compressed with Zstandard. Null after `KEEP_DELIVERIES_DAYS`."""
    body_bytes: Mapped[int]
    pages: Mapped[int] = count()
    without_url: Mapped[int] = count()
    """The number of page objects without a URL."""
    facts: Mapped[list[dict[str, Any]]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """The facts in the delivery; see `sessions.fold`. They stay after the body is deleted."""
    note: Mapped[str | None]
    """The irregularity of the delivery, if there was one."""


class UnknownEvent(Base):
    """Deliveries of unknown event types. A later version may replay them."""

    __tablename__ = "unknown_events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    identity: Mapped[UUID] = mapped_column(unique=True)
    event_type: Mapped[str]
    received_at: Mapped[datetime] = now()
    body: Mapped[bytes] = mapped_column(LargeBinary)
