"""Crawls, their pages and deliveries, and what everything took."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "change_events",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("watch_id", sa.Text(), nullable=True),
        sa.Column("watch_url", sa.Text(), nullable=False),
        sa.Column("detected_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("diff_summary", sa.Text(), nullable=True),
        sa.Column("snapshot_url", sa.Text(), nullable=True),
        sa.Column("rescrape_job_id", sa.Text(), nullable=True),
        sa.Column("rescrape_status", sa.String(length=50), nullable=True),
        sa.Column("indexed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_events")),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_change_events_detected_at"), "change_events", ["detected_at"], unique=False, schema="webhook"
    )
    op.create_index(
        op.f("ix_change_events_watch_id"), "change_events", ["watch_id"], unique=False, schema="webhook"
    )
    op.create_table(
        "crawl_sessions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("crawl_url", sa.Text(), server_default=sa.text("'unknown'"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(length=50), server_default=sa.text("'in_progress'"), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=True),
        sa.Column("total_pages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_indexed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_pending", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_unchanged", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_empty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_cancelled", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures_without_url", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_chunking_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_embedding_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_qdrant_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_bm25_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=True),
        sa.Column("initiated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("e2e_duration_ms", sa.Double(), nullable=True),
        sa.Column("last_settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "last_fact_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "fold", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("extra_metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crawl_sessions")),
        sa.UniqueConstraint("crawl_id", name=op.f("uq_crawl_sessions_crawl_id")),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_crawl_sessions_started_at"), "crawl_sessions", ["started_at"], unique=False, schema="webhook"
    )
    op.create_index(
        op.f("ix_crawl_sessions_status"), "crawl_sessions", ["status"], unique=False, schema="webhook"
    )
    op.create_table(
        "deleted_crawls",
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("crawl_id", name=op.f("pk_deleted_crawls")),
        schema="webhook",
    )
    op.create_table(
        "documents",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("chunks", sa.BigInteger(), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=True),
        sa.Column("indexed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_documents")),
        schema="webhook",
    )
    op.create_table(
        "request_metrics",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("method", sa.String(length=10), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("status_code", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("client_ip", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("extra_metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_metrics")),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_request_metrics_timestamp"), "request_metrics", ["timestamp"], unique=False, schema="webhook"
    )
    op.create_table(
        "unknown_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("identity", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unknown_events")),
        sa.UniqueConstraint("identity", name=op.f("uq_unknown_events_identity")),
        schema="webhook",
    )
    op.create_table(
        "crawl_requests",
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("engine", sa.String(length=50), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column(
            "options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("found", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("fetched", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_crawl_requests_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("crawl_id", name=op.f("pk_crawl_requests")),
        schema="webhook",
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("identity", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("pages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_deliveries_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("crawl_id", "identity", name=op.f("uq_deliveries_crawl_id_identity")),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_deliveries_received_at"), "deliveries", ["received_at"], unique=False, schema="webhook"
    )
    op.create_table(
        "document_crawls",
        sa.Column("document_key", sa.Uuid(), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_document_crawls_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["document_key"],
            ["webhook.documents.key"],
            name=op.f("fk_document_crawls_document_key_documents"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_key", "crawl_id", name=op.f("pk_document_crawls")),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_document_crawls_crawl_id"), "document_crawls", ["crawl_id"], unique=False, schema="webhook"
    )
    op.create_table(
        "operation_metrics",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("operation_type", sa.String(length=50), nullable=False),
        sa.Column("operation_name", sa.String(length=100), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("crawl_id", sa.String(length=255), nullable=True),
        sa.Column("document_url", sa.Text(), nullable=True),
        sa.Column("extra_metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_operation_metrics_crawl_id_crawl_sessions"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", "timestamp", name=op.f("pk_operation_metrics")),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_operation_metrics_crawl_id"),
        "operation_metrics",
        ["crawl_id"],
        unique=False,
        schema="webhook",
    )
    op.create_index(
        "ix_operation_metrics_document_url",
        "operation_metrics",
        ["document_url"],
        unique=False,
        schema="webhook",
        postgresql_using="hash",
    )
    op.create_index(
        op.f("ix_operation_metrics_job_id"), "operation_metrics", ["job_id"], unique=False, schema="webhook"
    )
    op.create_index(
        op.f("ix_operation_metrics_timestamp"),
        "operation_metrics",
        ["timestamp"],
        unique=False,
        schema="webhook",
    )
    op.create_table(
        "pages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("source_key", sa.Uuid(), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("document_key", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("webhook_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("status_code", sa.BigInteger(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_code", sa.String(length=100), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queue_wait_ms", sa.Double(), nullable=True),
        sa.Column("total_ms", sa.Double(), nullable=True),
        sa.Column(
            "stages", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("chunks", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_pages_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pages")),
        sa.UniqueConstraint("crawl_id", "source_key", name=op.f("uq_pages_crawl_id_source_key")),
        schema="webhook",
    )
    op.create_index("ix_pages_crawl_id_state", "pages", ["crawl_id", "state"], unique=False, schema="webhook")
    op.create_index(op.f("ix_pages_document_key"), "pages", ["document_key"], unique=False, schema="webhook")
    op.create_table(
        "page_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("page_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("error_code", sa.String(length=100), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "stages", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("total_ms", sa.Double(), nullable=True),
        sa.Column("unaccounted_ms", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["page_id"], ["webhook.pages.id"], name=op.f("fk_page_attempts_page_id_pages"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_page_attempts")),
        sa.UniqueConstraint("page_id", "number", name=op.f("uq_page_attempts_page_id_number")),
        schema="webhook",
    )
    op.create_table(
        "page_contents",
        sa.Column("page_id", sa.BigInteger(), nullable=False),
        sa.Column("markdown", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["page_id"], ["webhook.pages.id"], name=op.f("fk_page_contents_page_id_pages"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("page_id", name=op.f("pk_page_contents")),
        schema="webhook",
    )


def downgrade() -> None:
    op.drop_table("page_contents", schema="webhook")
    op.drop_table("page_attempts", schema="webhook")
    op.drop_index(op.f("ix_pages_document_key"), table_name="pages", schema="webhook")
    op.drop_index("ix_pages_crawl_id_state", table_name="pages", schema="webhook")
    op.drop_table("pages", schema="webhook")
    op.drop_index(op.f("ix_operation_metrics_timestamp"), table_name="operation_metrics", schema="webhook")
    op.drop_index(op.f("ix_operation_metrics_job_id"), table_name="operation_metrics", schema="webhook")
    op.drop_index(
        "ix_operation_metrics_document_url",
        table_name="operation_metrics",
        schema="webhook",
        postgresql_using="hash",
    )
    op.drop_index(op.f("ix_operation_metrics_crawl_id"), table_name="operation_metrics", schema="webhook")
    op.drop_table("operation_metrics", schema="webhook")
    op.drop_index(op.f("ix_document_crawls_crawl_id"), table_name="document_crawls", schema="webhook")
    op.drop_table("document_crawls", schema="webhook")
    op.drop_index(op.f("ix_deliveries_received_at"), table_name="deliveries", schema="webhook")
    op.drop_table("deliveries", schema="webhook")
    op.drop_table("crawl_requests", schema="webhook")
    op.drop_table("unknown_events", schema="webhook")
    op.drop_index(op.f("ix_request_metrics_timestamp"), table_name="request_metrics", schema="webhook")
    op.drop_table("request_metrics", schema="webhook")
    op.drop_table("documents", schema="webhook")
    op.drop_table("deleted_crawls", schema="webhook")
    op.drop_index(op.f("ix_crawl_sessions_status"), table_name="crawl_sessions", schema="webhook")
    op.drop_index(op.f("ix_crawl_sessions_started_at"), table_name="crawl_sessions", schema="webhook")
    op.drop_table("crawl_sessions", schema="webhook")
    op.drop_index(op.f("ix_change_events_watch_id"), table_name="change_events", schema="webhook")
    op.drop_index(op.f("ix_change_events_detected_at"), table_name="change_events", schema="webhook")
    op.drop_table("change_events", schema="webhook")
