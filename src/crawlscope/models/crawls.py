"""A crawl: its session, its facts, its request and its reconciliation."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Identity, Index, String, UniqueConstraint, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, count, crawl_reference, now, total


class CrawlSession(Base):
    """The record of a crawl. Counts and totals are sums over `pages` and `operation_metrics`."""

    __tablename__ = "crawl_sessions"
    __table_args__ = (
        Index("ix_crawl_sessions_uncounted", "started_at", postgresql_where=text("NOT counted")),
        Index("ix_crawl_sessions_site", text("md5(crawl_url)"), "started_at"),
    )

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
    """Page events without a URL. They are facts of the crawl but not pages."""
    total_chunking_ms: Mapped[float] = total()
    total_embedding_ms: Mapped[float] = total()
    total_qdrant_ms: Mapped[float] = total()
    total_bm25_ms: Mapped[float] = total()
    duration_ms: Mapped[float | None]
    initiated_at: Mapped[datetime | None]
    e2e_duration_ms: Mapped[float | None]
    last_settled_at: Mapped[datetime | None]
    last_fact_at: Mapped[datetime] = now()
    """The time of the latest fact of the crawl."""
    fold: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """The merged facts, from which status and times are computed; see `sessions.fold`."""
    lacks: Mapped[list[str]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """The missing facts of the crawl."""
    counted: Mapped[bool] = mapped_column(server_default=false())
    """Whether the ended crawl was counted for monitoring."""
    extra_metadata: Mapped[dict[str, Any] | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = now()


class DeletedCrawl(Base):
    """Deleted crawls. Their later deliveries are ignored."""

    __tablename__ = "deleted_crawls"

    crawl_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    deleted_at: Mapped[datetime] = now()


class CrawlRequest(Base):
    """A crawl that was requested here, with the progress of the built-in crawler."""

    __tablename__ = "crawl_requests"

    crawl_id: Mapped[str] = crawl_reference(primary_key=True)
    engine: Mapped[str] = mapped_column(String(50))
    url: Mapped[str]
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    requested_at: Mapped[datetime] = now()
    job_id: Mapped[int | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=false())
    found: Mapped[int] = count()
    """The number of URLs that the crawler has accepted so far."""
    fetched: Mapped[int] = count()
    requests: Mapped[int] = count()
    """The number of HTTP requests of the built-in crawler."""
    response_ms: Mapped[float] = total()
    """The sum of the times that the site needed for its answers."""
    refusals: Mapped[int] = count()
    """The number of answers that asked for fewer requests."""
    delay_ms: Mapped[float] = total()
    """The sum of the times that requests waited because the site limits their rate."""


class CrawlFact(Base):
    """A fact that did not come with a delivery: a request, an answer of Firecrawl's API, an action of an
    operator."""

    __tablename__ = "crawl_facts"
    __table_args__ = (UniqueConstraint("crawl_id", "identity"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = crawl_reference()
    identity: Mapped[UUID]
    """Equal for equal facts."""
    at: Mapped[datetime]
    fact: Mapped[dict[str, Any]]


class Reconciliation(Base):
    """The comparison of a crawl with the crawler's own API."""

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
    """A `vocabulary.ReconcileState`."""
    settled: Mapped[bool] = mapped_column(server_default=false())
    """Whether the reconciliation is done. News of the crawl reopens it."""
    checked_at: Mapped[datetime | None]
    checks: Mapped[int] = count()
    failures: Mapped[int] = count()
    """The number of consecutive checks without an answer."""
    next_check_at: Mapped[datetime | None]
    """Null if no check is planned."""
    leased_until: Mapped[datetime | None]
    """The end of the lease. Until then only the process with the lease compares the crawl."""
    in_full: Mapped[bool] = mapped_column(server_default=false())
    """Whether the next check includes the pages of a running crawl, because deliveries may be lost."""
    running_at: Mapped[datetime | None]
    """The last time at which Firecrawl reported that the crawl was running."""
    total: Mapped[int | None]
    """Firecrawl's count of all pages. It decreases when pages fail."""
    completed: Mapped[int | None]
    """Firecrawl's count of pages with a document."""
    moved_at: Mapped[datetime | None]
    """The time of the last change of Firecrawl's counts."""
    added: Mapped[int] = count()
    """The number of pages that only reconciliation added."""
    missing: Mapped[int] = count()
    """The number of pages that Firecrawl counts, or that were requested, but that are not known here."""
    missing_urls: Mapped[list[str]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """The first known URLs of missing pages."""
    error: Mapped[str | None]
