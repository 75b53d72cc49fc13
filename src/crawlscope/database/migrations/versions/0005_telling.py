"""Facts about crawls are told to a receiver; what became of a change is kept with it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notifying",
        sa.Column("only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_notifying")),
        schema="webhook",
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("event_type", sa.String(length=50), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("dead", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_notifications_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint(
            "crawl_id",
            "event_type",
            "settled_at",
            name=op.f("uq_notifications_crawl_id_event_type_settled_at"),
            postgresql_nulls_not_distinct=True,
        ),
        schema="webhook",
    )
    op.create_index(
        op.f("ix_notifications_created_at"), "notifications", ["created_at"], unique=False, schema="webhook"
    )
    op.create_index(
        "ix_notifications_next_attempt_at",
        "notifications",
        ["next_attempt_at"],
        unique=False,
        schema="webhook",
        postgresql_where=sa.text("delivered_at IS NULL AND NOT dead"),
    )
    op.add_column("change_events", sa.Column("rescrape_error", sa.Text(), nullable=True), schema="webhook")
    op.add_column(
        "change_events",
        sa.Column("next_try_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        schema="webhook",
    )
    op.add_column("change_events", sa.Column("identity", sa.Uuid(), nullable=True), schema="webhook")
    op.create_index(
        op.f("ix_change_events_identity"), "change_events", ["identity"], unique=False, schema="webhook"
    )
    op.create_index(
        "ix_change_events_rescrape_status",
        "change_events",
        ["rescrape_status"],
        unique=False,
        schema="webhook",
        postgresql_where=sa.text("rescrape_status IN ('waiting', 'running')"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_change_events_rescrape_status",
        table_name="change_events",
        schema="webhook",
        postgresql_where=sa.text("rescrape_status IN ('waiting', 'running')"),
    )
    op.drop_index(op.f("ix_change_events_identity"), table_name="change_events", schema="webhook")
    op.drop_column("change_events", "identity", schema="webhook")
    op.drop_column("change_events", "next_try_at", schema="webhook")
    op.drop_column("change_events", "rescrape_error", schema="webhook")
    op.drop_table("notifications", schema="webhook")
    op.drop_table("notifying", schema="webhook")
