"""The lists of crawls, operations and requests know how many there are without reading all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TABLES = ("crawl_sessions", "operation_metrics", "request_metrics")
NOTE_ROW = """
    CREATE OR REPLACE FUNCTION webhook.note_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO webhook.row_counts (table_name, rows)
        VALUES (TG_ARGV[0], CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END);
        RETURN NULL;
    END $$
"""
TRIGGER = """
    CREATE OR REPLACE TRIGGER note_row AFTER INSERT OR DELETE ON webhook.{table}
    FOR EACH ROW EXECUTE FUNCTION webhook.note_row('{table}')
"""
COUNT = """
    INSERT INTO webhook.row_counts (table_name, rows)
    SELECT '{table}', (SELECT count(*) FROM webhook.{table})
        - (SELECT coalesce(sum(rows), 0) FROM webhook.row_counts WHERE table_name = '{table}')
"""
"""One snapshot has a row with the note of it, or neither."""


def upgrade() -> None:
    """Nobody waits for the count: triggers note what others write meanwhile."""
    op.create_table(
        "row_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_row_counts")),
        schema="webhook",
        if_not_exists=True,
    )
    op.execute(NOTE_ROW)
    with op.get_context().autocommit_block():
        for statement in (TRIGGER, COUNT, "DROP TRIGGER note_row ON webhook.{table}"):
            for table in TABLES:
                op.execute(statement.format(table=table))
    op.execute("DROP FUNCTION webhook.note_row()")


def downgrade() -> None:
    op.drop_table("row_counts", schema="webhook")
