"""A page: its state, its content, and the attempts of workers to index it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import SCHEMA, Base, count, crawl_reference, now


class Page(Base):
    """A page of a crawl: its source URL, its state and its timing."""

    __tablename__ = "pages"
    __table_args__ = (
        UniqueConstraint("crawl_id", "source_key"),
        Index("ix_pages_crawl_id_state", "crawl_id", "state"),
        Index(
            "ix_pages_crawl_id_settled_in",
            "crawl_id",
            "settled_in",
            "id",
            postgresql_where=text("settled_in IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = crawl_reference()
    source_key: Mapped[UUID] = mapped_column(index=True)
    """A hash of `source_url`, because URLs can be too long for a database index."""
    source_url: Mapped[str]
    url: Mapped[str]
    """The URL after redirects. The index and search show this URL."""
    document_key: Mapped[UUID] = mapped_column(index=True)
    """A hash of `url`."""
    state: Mapped[str] = mapped_column(String(20))
    revision: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """The number of contents and re-queuings. A job for an older revision has no effect."""
    delivered: Mapped[bool]
    """Whether the crawler delivered content to index. If not, `error` is the crawler's."""
    pulled: Mapped[bool] = mapped_column(server_default=false())
    """Whether the content was fetched from the crawler's API instead of delivered."""
    received_at: Mapped[datetime]
    webhook_id: Mapped[str] = mapped_column(server_default=text("''"))
    status_code: Mapped[int | None]
    title: Mapped[str | None]
    language: Mapped[str | None]
    job_id: Mapped[int | None]
    attempts: Mapped[int] = count()
    error_code: Mapped[str | None] = mapped_column(String(100))
    error: Mapped[str | None]
    error_detail: Mapped[str | None]
    """Firecrawl's own text, if `error` is shorter."""
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    settled_in: Mapped[int | None]
    """The transaction in which it settled. Transactions commit in another order than their clocks say, so
    only this lets a reader find each page that settled since its last poll."""
    queue_wait_ms: Mapped[float | None]
    total_ms: Mapped[float | None]
    stages: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    chunks: Mapped[int | None]
    content_hash: Mapped[str | None]
    """The SHA-256 of title, language and cleaned text, as in `documents`; of a page that failed, null."""


class PageContent(Base):
    """The delivered content of a page. The index can be rebuilt from it."""

    __tablename__ = "page_contents"
    __table_args__ = (
        Index(
            "ix_page_contents_delivery_id", "delivery_id", postgresql_where=text("delivery_id IS NOT NULL")
        ),
    )

    page_id: Mapped[int] = mapped_column(
        ForeignKey(f"{SCHEMA}.pages.id", ondelete="CASCADE"), primary_key=True
    )
    markdown: Mapped[str]
    """The delivered Markdown, or the Markdown that indexing made from the HTML."""
    html: Mapped[str] = mapped_column(server_default=text("''"))
    """The delivered HTML, if no Markdown was delivered."""
    delivery_id: Mapped[int | None]
    """The delivery whose body contains the Markdown, which is stored once then: `markdown` is empty."""
    begins: Mapped[int | None] = mapped_column(Integer)
    """The byte of the uncompressed body at which the JSON string of the Markdown begins."""
    ends: Mapped[int | None] = mapped_column(Integer)
    characters: Mapped[int | None] = mapped_column(Integer)
    """The length of Markdown in a delivery."""
    hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The SHA-256 of Markdown in a delivery."""


class PageAttempt(Base):
    """One attempt of a worker at a page, successful or not."""

    __tablename__ = "page_attempts"
    __table_args__ = (
        UniqueConstraint("page_id", "number"),
        Index("ix_page_attempts_worker_open", "worker", postgresql_where=text("finished_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey(f"{SCHEMA}.pages.id", ondelete="CASCADE"))
    number: Mapped[int]
    revision: Mapped[int]
    worker: Mapped[str]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(20))
    error_code: Mapped[str | None] = mapped_column(String(100))
    error: Mapped[str | None]
    stages: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    total_ms: Mapped[float | None]
    unaccounted_ms: Mapped[float | None]


class Outage(Base):
    """A dependency that a worker waits for. The row is deleted when the dependency is available again."""

    __tablename__ = "outages"

    part: Mapped[str] = mapped_column(String(50), primary_key=True)
    worker: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = now()
    reported_at: Mapped[datetime] = now()
    reason: Mapped[str]


class PastOutage(Base):
    """An outage that is over, as one worker saw it."""

    __tablename__ = "past_outages"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    part: Mapped[str] = mapped_column(String(50))
    worker: Mapped[str]
    since: Mapped[datetime]
    until: Mapped[datetime] = mapped_column(index=True)
    reason: Mapped[str]
