"""A crawl: what is known of it, who requested it, and its comparison with Firecrawl."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Identity, Index, String, UniqueConstraint, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, count, crawl_reference, now, total


class CrawlSession(Base):
    """A crawl as far as it is known. Counts and totals are sums over `pages` and `operation_metrics`."""

    __tablename__ = "crawl_sessions"

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    crawl_id: Mapped[str] = mapped_column(String(255), unique=True)
    crawl_url: Mapped[str] = mapped_column(server_default=text("'unknown'"))
    started_at: Mapped[datetime] = mapped_column(index=True)
    completed_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(String(50), server_default=text("'in_progress'"), index=True)
    success: Mapped[bool | None]
    total_pages: Mapped[int] = count()
    pages_indexed: Mapped[int] = count()
    pages_failed: Mapped[int] = count()
    pages_pending: Mapped[int] = count()
    pages_unchanged: Mapped[int] = count()
    pages_empty: Mapped[int] = count()
    pages_cancelled: Mapped[int] = count()
    failures_without_url: Mapped[int] = count()
    """Page events that name no page: facts of the crawl, but none of its pages."""
    total_chunking_ms: Mapped[float] = total()
    total_embedding_ms: Mapped[float] = total()
    total_qdrant_ms: Mapped[float] = total()
    total_bm25_ms: Mapped[float] = total()
    duration_ms: Mapped[float | None]
    initiated_at: Mapped[datetime | None]
    e2e_duration_ms: Mapped[float | None]
    last_settled_at: Mapped[datetime | None]
    last_fact_at: Mapped[datetime] = now()
    """When anything was last heard of this crawl."""
    fold: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """What the lifecycle columns are computed from; see `sessions.fold`."""
    lacks: Mapped[list[str]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """What was never heard of the crawl."""
    extra_metadata: Mapped[dict[str, Any] | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = now()


class DeletedCrawl(Base):
    """Crawls that were deleted: what still arrives of them is ignored."""

    __tablename__ = "deleted_crawls"

    crawl_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    deleted_at: Mapped[datetime] = now()


class CrawlRequest(Base):
    """A crawl that was asked for here, and how far its crawler has come."""

    __tablename__ = "crawl_requests"

    crawl_id: Mapped[str] = crawl_reference(primary_key=True)
    engine: Mapped[str] = mapped_column(String(50))
    url: Mapped[str]
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    requested_at: Mapped[datetime] = now()
    job_id: Mapped[int | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=false())
    found: Mapped[int] = count()
    """URLs that the crawler has accepted so far."""
    fetched: Mapped[int] = count()


class CrawlFact(Base):
    """What is known of a crawl other than by a delivery: that it was asked for, what the status API said,
    what an operator did."""

    __tablename__ = "crawl_facts"
    __table_args__ = (UniqueConstraint("crawl_id", "identity"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = crawl_reference()
    identity: Mapped[UUID]
    """Equal for facts that are one."""
    at: Mapped[datetime]
    fact: Mapped[dict[str, Any]]


class Reconciliation(Base):
    """How far a crawl has been compared with what the crawler's own API says of it."""

    __tablename__ = "reconciliations"
    __table_args__ = (
        Index(
            "ix_reconciliations_next_check_at",
            "next_check_at",
            postgresql_where=text("next_check_at IS NOT NULL"),
        ),
    )

    crawl_id: Mapped[str] = crawl_reference(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    """See `vocabulary.ReconcileState`."""
    settled: Mapped[bool] = mapped_column(server_default=false())
    """Nothing more can come of asking, unless something new is heard of the crawl."""
    checked_at: Mapped[datetime | None]
    checks: Mapped[int] = count()
    failures: Mapped[int] = count()
    """Checks in a row that got no answer."""
    next_check_at: Mapped[datetime | None]
    """Null where no further check is planned."""
    leased_until: Mapped[datetime | None]
    """Until then a process is checking it, and no other one does."""
    in_full: Mapped[bool] = mapped_column(server_default=false())
    """The next check compares pages too, also while the crawl goes on: deliveries may have been lost."""
    running_at: Mapped[datetime | None]
    """When Firecrawl said last that the crawl goes on."""
    total: Mapped[int | None]
    """As Firecrawl counts; shrinks as pages fail."""
    completed: Mapped[int | None]
    """Pages that brought a document, as Firecrawl counts."""
    moved_at: Mapped[datetime | None]
    """When Firecrawl's counts changed last."""
    added: Mapped[int] = count()
    """Pages that only this brought."""
    missing: Mapped[int] = count()
    """Pages that Firecrawl has, or was asked for, and that nothing is known of."""
    missing_urls: Mapped[list[str]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """The first of them, as far as they can be named."""
    error: Mapped[str | None]
