"""The tables: what is known of crawls, pages and the time everything took (PostgreSQL, schema `webhook`)."""

from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "webhook"


class Base(DeclarativeBase):
    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map = {  # noqa: RUF012 - read once by SQLAlchemy when the class is made
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(),
        int: BigInteger(),
    }


def table_of(model: type[Base]) -> Table:
    """The table behind a model: statements on it cost half of those that go through the mapper."""
    return cast(Table, model.__table__)


def _count() -> Mapped[int]:
    return mapped_column(default=0, server_default=text("0"))


def _total() -> Mapped[float]:
    return mapped_column(default=0.0, server_default=text("0"))


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


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
    total_pages: Mapped[int] = _count()
    pages_indexed: Mapped[int] = _count()
    pages_failed: Mapped[int] = _count()
    pages_pending: Mapped[int] = _count()
    pages_unchanged: Mapped[int] = _count()
    pages_empty: Mapped[int] = _count()
    pages_cancelled: Mapped[int] = _count()
    failures_without_url: Mapped[int] = _count()
    """Page events that name no page: facts of the crawl, but none of its pages."""
    total_chunking_ms: Mapped[float] = _total()
    total_embedding_ms: Mapped[float] = _total()
    total_qdrant_ms: Mapped[float] = _total()
    total_bm25_ms: Mapped[float] = _total()
    duration_ms: Mapped[float | None]
    initiated_at: Mapped[datetime | None]
    e2e_duration_ms: Mapped[float | None]
    last_settled_at: Mapped[datetime | None]
    last_fact_at: Mapped[datetime] = _now()
    """When anything was last heard of this crawl."""
    fold: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """What the lifecycle columns are computed from; see `sessions.fold`."""
    lacks: Mapped[list[str]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """What was never heard of the crawl."""
    extra_metadata: Mapped[dict[str, Any] | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = _now()


class DeletedCrawl(Base):
    """Crawls that were deleted: what still arrives of them is ignored."""

    __tablename__ = "deleted_crawls"

    crawl_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    deleted_at: Mapped[datetime] = _now()


def _crawl_reference(**options: Any) -> Mapped[str]:
    return mapped_column(
        String(255), ForeignKey(f"{SCHEMA}.crawl_sessions.crawl_id", ondelete="CASCADE"), **options
    )


class CrawlRequest(Base):
    """A crawl that was asked for here, and how far its crawler has come."""

    __tablename__ = "crawl_requests"

    crawl_id: Mapped[str] = _crawl_reference(primary_key=True)
    engine: Mapped[str] = mapped_column(String(50))
    url: Mapped[str]
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    requested_at: Mapped[datetime] = _now()
    job_id: Mapped[int | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=false())
    found: Mapped[int] = _count()
    """URLs that the crawler has accepted so far."""
    fetched: Mapped[int] = _count()


class Delivery(Base):
    """A webhook delivery as it came."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("crawl_id", "identity"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = _crawl_reference()
    identity: Mapped[UUID]
    """A hash of what makes this delivery the same as another."""
    event_type: Mapped[str] = mapped_column(String(100))
    webhook_id: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(index=True)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The raw body, zlib-compressed; dropped when its time is over."""
    body_bytes: Mapped[int]
    pages: Mapped[int] = _count()
    without_url: Mapped[int] = _count()
    """How many of its pages name no URL."""
    facts: Mapped[list[dict[str, Any]]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """What it says of the crawl's life; see `sessions.fold`. Outlives the body."""
    note: Mapped[str | None]
    """What was odd about it."""


class CrawlFact(Base):
    """What is known of a crawl other than by a delivery: that it was asked for, what the status API said,
    what an operator did."""

    __tablename__ = "crawl_facts"
    __table_args__ = (UniqueConstraint("crawl_id", "identity"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = _crawl_reference()
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

    crawl_id: Mapped[str] = _crawl_reference(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    """See `vocabulary.ReconcileState`."""
    settled: Mapped[bool] = mapped_column(server_default=false())
    """Nothing more can come of asking, unless something new is heard of the crawl."""
    checked_at: Mapped[datetime | None]
    checks: Mapped[int] = _count()
    failures: Mapped[int] = _count()
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
    added: Mapped[int] = _count()
    """Pages that only this brought."""
    missing: Mapped[int] = _count()
    """Pages that Firecrawl has, or was asked for, and that nothing is known of."""
    missing_urls: Mapped[list[str]] = mapped_column(JSONB(), server_default=text("'[]'"))
    """The first of them, as far as they can be named."""
    error: Mapped[str | None]


class Outage(Base):
    """A part that workers wait for, since when and why; gone when it is back."""

    __tablename__ = "outages"

    part: Mapped[str] = mapped_column(String(50), primary_key=True)
    worker: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = _now()
    reported_at: Mapped[datetime] = _now()
    reason: Mapped[str]


class Notifying(Base):
    """Since when facts are told to `NOTIFY_URL`: one row while that is set."""

    __tablename__ = "notifying"

    only: Mapped[bool] = mapped_column(Boolean(), primary_key=True, server_default=true())
    """Always true: there is one row at most."""
    since: Mapped[datetime] = _now()


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
    crawl_id: Mapped[str] = _crawl_reference()
    event_type: Mapped[str] = mapped_column(String(50))
    settled_at: Mapped[datetime | None]
    """When the crawl's last page had settled: the same fact is told again only after another one has."""
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    attempts: Mapped[int] = _count()
    next_attempt_at: Mapped[datetime] = _now()
    attempted_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    """The HTTP status of the last attempt; null where none came."""
    last_error: Mapped[str | None]
    dead: Mapped[bool] = mapped_column(server_default=false())
    """Given up, unless somebody asks for it to be sent again."""


class UnknownEvent(Base):
    """Deliveries of a type that is not known yet, kept for the day when it is."""

    __tablename__ = "unknown_events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    identity: Mapped[UUID] = mapped_column(unique=True)
    event_type: Mapped[str]
    received_at: Mapped[datetime] = _now()
    body: Mapped[bytes] = mapped_column(LargeBinary)


class Page(Base):
    """A page of a crawl: its source URL, what became of it, and what that took."""

    __tablename__ = "pages"
    __table_args__ = (
        UniqueConstraint("crawl_id", "source_key"),
        Index("ix_pages_crawl_id_state", "crawl_id", "state"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str] = _crawl_reference()
    source_key: Mapped[UUID] = mapped_column(index=True)
    """A hash of `source_url`: URLs can be too long for an index."""
    source_url: Mapped[str]
    url: Mapped[str]
    """Where the source URL led; what the index and search show."""
    document_key: Mapped[UUID] = mapped_column(index=True)
    """A hash of `url`."""
    state: Mapped[str] = mapped_column(String(20))
    revision: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """Counts the contents and re-queuings of this page; a job for an older one is void."""
    delivered: Mapped[bool]
    """Whether Firecrawl brought usable content; if not, `error` is Firecrawl's."""
    pulled: Mapped[bool] = mapped_column(server_default=false())
    """Whether it was fetched from the crawler's API, not delivered."""
    received_at: Mapped[datetime]
    webhook_id: Mapped[str] = mapped_column(server_default=text("''"))
    status_code: Mapped[int | None]
    title: Mapped[str | None]
    language: Mapped[str | None]
    job_id: Mapped[int | None]
    attempts: Mapped[int] = _count()
    error_code: Mapped[str | None] = mapped_column(String(100))
    error: Mapped[str | None]
    error_detail: Mapped[str | None]
    """Firecrawl's own words, where `error` has them shortened."""
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    queue_wait_ms: Mapped[float | None]
    total_ms: Mapped[float | None]
    stages: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    chunks: Mapped[int | None]


class PageContent(Base):
    """What was delivered of a page: the index can be rebuilt from here."""

    __tablename__ = "page_contents"

    page_id: Mapped[int] = mapped_column(
        ForeignKey(f"{SCHEMA}.pages.id", ondelete="CASCADE"), primary_key=True
    )
    markdown: Mapped[str]
    """As delivered; where only HTML was, as it was read from that when the page was indexed."""
    html: Mapped[str] = mapped_column(server_default=text("''"))
    """As delivered, where no Markdown was."""


class PageAttempt(Base):
    """One try of a worker at a page, kept also when it failed."""

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


class IndexGeneration(Base):
    """One index, and how the vectors in it are made; see `indexing.generations`."""

    __tablename__ = "index_generations"
    __table_args__ = (
        Index(
            "uq_index_generations_live",
            "state",
            unique=True,
            postgresql_where=text("state IN ('serving', 'filling')"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(unique=True)
    """Of the folder or collection."""
    fingerprint: Mapped[str]
    """Of embedder, encoder and chunking."""
    embedder: Mapped[dict[str, Any]]
    """What it takes to open the same embedder again, without secrets."""
    chunk_tokens: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    """`filling`, `serving`, `retired` or `dropped`."""
    problem: Mapped[str | None]
    """What is wrong with it, or what its filling waits for."""
    created_at: Mapped[datetime] = _now()
    made_at: Mapped[datetime | None]
    """When its folder or collection was made."""
    switched_at: Mapped[datetime | None]
    """When searches began to use it."""
    retired_at: Mapped[datetime | None]


class Document(Base):
    """What an index holds under one URL."""

    __tablename__ = "documents"

    generation_id: Mapped[int] = mapped_column(
        ForeignKey(f"{SCHEMA}.index_generations.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[UUID] = mapped_column(primary_key=True)
    """A hash of `url`."""
    url: Mapped[str]
    content_hash: Mapped[str]
    """Of title, language and cleaned text."""
    fingerprint: Mapped[str]
    """Of the embedder and the chunking that made its chunks."""
    chunks: Mapped[int]
    crawl_id: Mapped[str | None] = mapped_column(String(255))
    """The crawl that brought this content."""
    indexed_at: Mapped[datetime] = _now()
    revision: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """Counts its contents; in an index that is being filled, the one it was made from."""
    error: Mapped[str | None]
    """Why the index holds nothing of it, though an earlier one did."""


class DocumentCrawl(Base):
    """Which crawls found a document."""

    __tablename__ = "document_crawls"

    document_key: Mapped[UUID] = mapped_column(primary_key=True)
    crawl_id: Mapped[str] = _crawl_reference(primary_key=True, index=True)
    found_at: Mapped[datetime] = _now()


class OperationMetric(Base):
    """One measured operation. Keyed with its time, so that the table can be partitioned."""

    __tablename__ = "operation_metrics"
    __table_args__ = (Index("ix_operation_metrics_document_url", "document_url", postgresql_using="hash"),)

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    timestamp: Mapped[datetime] = mapped_column(primary_key=True, index=True, server_default=func.now())
    operation_type: Mapped[str] = mapped_column(String(50))
    operation_name: Mapped[str] = mapped_column(String(100))
    duration_ms: Mapped[float]
    success: Mapped[bool]
    error_message: Mapped[str | None]
    request_id: Mapped[str | None]
    job_id: Mapped[str | None] = mapped_column(index=True)
    crawl_id: Mapped[str | None] = mapped_column(
        String(255), ForeignKey(f"{SCHEMA}.crawl_sessions.crawl_id", ondelete="SET NULL"), index=True
    )
    document_url: Mapped[str | None]
    extra_metadata: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = _now()


class RequestMetric(Base):
    """One answered HTTP request."""

    __tablename__ = "request_metrics"

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    timestamp: Mapped[datetime] = mapped_column(index=True, server_default=func.now())
    method: Mapped[str] = mapped_column(String(10))
    path: Mapped[str]
    status_code: Mapped[int]
    duration_ms: Mapped[float]
    request_id: Mapped[str | None]
    client_ip: Mapped[str | None]
    user_agent: Mapped[str | None]
    extra_metadata: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = _now()


class ChangeEvent(Base):
    """A change that a watcher saw on a page, and how it became searchable."""

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
    """The crawl that fetches the page again."""
    rescrape_status: Mapped[str | None] = mapped_column(String(50))
    """See `vocabulary.RescrapeStatus`; at the end the state of the page."""
    rescrape_error: Mapped[str | None]
    next_try_at: Mapped[datetime] = _now()
    """When Firecrawl is asked again, where it was away."""
    indexed_at: Mapped[datetime | None]
    identity: Mapped[UUID | None] = mapped_column(index=True)
    """Equal for notifications that can be the same one."""
    extra_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    created_at: Mapped[datetime] = _now()
