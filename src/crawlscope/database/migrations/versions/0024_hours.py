"""Totals over all crawls read one row for each past hour, and retention finds the bodies that are left."""

import sqlalchemy as sa
from alembic import op

from crawlscope.database.migrations.indexes import create_index

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None
serves_from = "0022"

NOTE_CHANGED_HOUR = """
    CREATE FUNCTION webhook.note_changed_hour() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(7108, 8);
        INSERT INTO webhook.changed_hours (hour)
        SELECT coalesce(NEW.hour, OLD.hour)
        WHERE coalesce(NEW.hour, OLD.hour) <= (SELECT max(hour) FROM webhook.hour_histograms);
        RETURN NULL;
    END $$
"""
"""The lock is free while no hour is summed up: a sum has all of this change, or the change is noted."""
TRIGGER = """
    CREATE TRIGGER {name} AFTER {events} ON webhook.operation_histograms FOR EACH ROW
    WHEN ({row}.hour < clock_timestamp() - interval '1 hour') EXECUTE FUNCTION webhook.note_changed_hour()
"""
"""Rows of the present hour are written all the time: for these the condition is the whole cost."""
TRIGGERS = (("note_written_hour", "INSERT OR UPDATE", "NEW"), ("note_deleted_hour", "DELETE", "OLD"))


def upgrade() -> None:
    create_index("ix_deliveries_received_at_with_body", "deliveries", "(received_at) WHERE body IS NOT NULL")
    op.create_table(
        "hour_histograms",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operation_type", sa.String(length=50), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("total_ms", sa.Double(), nullable=False),
        sa.Column("failed_ms", sa.Double(), nullable=False),
        sa.Column("min_ms", sa.Double(), nullable=True),
        sa.Column("max_ms", sa.Double(), nullable=True),
        sa.Column("buckets", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("counts", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint("hour", "operation_type", name=op.f("pk_hour_histograms")),
        schema="webhook",
    )
    op.create_table(
        "changed_hours",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changed_hours")),
        schema="webhook",
    )
    op.execute(NOTE_CHANGED_HOUR)
    for name, events, row in TRIGGERS:
        op.execute(TRIGGER.format(name=name, events=events, row=row))


def downgrade() -> None:
    op.drop_index("ix_deliveries_received_at_with_body", table_name="deliveries", schema="webhook")
    for name, _, _ in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON webhook.operation_histograms")
    op.execute("DROP FUNCTION webhook.note_changed_hour()")
    op.drop_table("changed_hours", schema="webhook")
    op.drop_table("hour_histograms", schema="webhook")
