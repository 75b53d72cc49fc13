"""Facts of crawls are kept beside what follows from them; reconciling and outages leave traces."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


FACTS_OF_A_FOLD = [
    """
    SELECT crawl_id, (each.value->>0)::timestamptz,
           jsonb_build_object('heard', '', 'metadata', jsonb_build_object(each.key, each.value->1))
    FROM webhook.crawl_sessions, jsonb_each(coalesce(fold->'metadata', '{}')) AS each
    """,
    """
    SELECT crawl_id, (fold->'first_page'->>0)::timestamptz, jsonb_build_object('page', fold->'first_page'->1)
    FROM webhook.crawl_sessions WHERE jsonb_typeof(fold->'first_page') = 'array'
    """,
    """
    SELECT crawl_id, (each.value->>0)::timestamptz,
           jsonb_build_object('ended', each.key, 'error', each.value->1)
    FROM webhook.crawl_sessions, jsonb_each(coalesce(fold->'ends', '{}')) AS each
    """,
    "SELECT crawl_id, started_at, jsonb_build_object('heard', '') FROM webhook.crawl_sessions",
    "SELECT crawl_id, last_fact_at, jsonb_build_object('heard', '') FROM webhook.crawl_sessions",
]
"""What was remembered of each crawl, told as facts."""


def upgrade() -> None:
    op.create_table(
        "outages",
        sa.Column("part", sa.String(length=50), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("part", "worker", name=op.f("pk_outages")),
        schema="webhook",
    )
    op.create_table(
        "crawl_facts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("identity", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fact", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_crawl_facts_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crawl_facts")),
        sa.UniqueConstraint("crawl_id", "identity", name=op.f("uq_crawl_facts_crawl_id_identity")),
        schema="webhook",
    )
    op.create_table(
        "reconciliations",
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("settled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checks", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "next_check_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("covers_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("added", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_reconciliations_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("crawl_id", name=op.f("pk_reconciliations")),
        schema="webhook",
    )
    op.create_index(
        "ix_reconciliations_next_check_at",
        "reconciliations",
        ["next_check_at"],
        unique=False,
        schema="webhook",
        postgresql_where=sa.text("NOT settled"),
    )
    op.add_column(
        "crawl_sessions",
        sa.Column(
            "lacks", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        schema="webhook",
    )
    op.add_column(
        "deliveries",
        sa.Column("without_url", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        schema="webhook",
    )
    op.add_column(
        "deliveries",
        sa.Column(
            "facts", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        schema="webhook",
    )
    op.alter_column("deliveries", "body", existing_type=postgresql.BYTEA(), nullable=True, schema="webhook")
    op.create_index(
        "ix_page_attempts_worker_open",
        "page_attempts",
        ["worker"],
        unique=False,
        schema="webhook",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.add_column(
        "pages",
        sa.Column("pulled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="webhook",
    )
    for facts in FACTS_OF_A_FOLD:
        op.execute(
            "INSERT INTO webhook.crawl_facts (crawl_id, identity, at, fact) "
            f"SELECT crawl_id, gen_random_uuid(), at, fact FROM ({facts}) AS known (crawl_id, at, fact)"
        )
    op.execute(
        "UPDATE webhook.crawl_sessions SET fold = fold || jsonb_build_object('first_fact_at', started_at)"
    )
    op.execute("UPDATE webhook.deliveries SET without_url = 1 WHERE note = 'names no page URL'")


def downgrade() -> None:
    op.drop_column("pages", "pulled", schema="webhook")
    op.drop_index(
        "ix_page_attempts_worker_open",
        table_name="page_attempts",
        schema="webhook",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.execute("UPDATE webhook.deliveries SET body = '' WHERE body IS NULL")
    op.alter_column("deliveries", "body", existing_type=postgresql.BYTEA(), nullable=False, schema="webhook")
    op.drop_column("deliveries", "facts", schema="webhook")
    op.drop_column("deliveries", "without_url", schema="webhook")
    op.drop_column("crawl_sessions", "lacks", schema="webhook")
    op.drop_index(
        "ix_reconciliations_next_check_at",
        table_name="reconciliations",
        schema="webhook",
        postgresql_where=sa.text("NOT settled"),
    )
    op.drop_table("reconciliations", schema="webhook")
    op.drop_table("crawl_facts", schema="webhook")
    op.drop_table("outages", schema="webhook")
