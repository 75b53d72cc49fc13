"""Indexes of tables that grow with the years: they are built while others write.

Each function commits what its migration has done before, so whatever that was must bear to be repeated.
"""

from alembic import op
from sqlalchemy import text

_IS_INVALID = text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:index)")
_PARTITIONS_WITHOUT = text("""
    SELECT relname FROM pg_inherits AS partition JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = to_regclass(:table) AND NOT EXISTS (
        SELECT FROM pg_index JOIN pg_inherits AS part ON part.inhrelid = indexrelid
        WHERE indrelid = partition.inhrelid AND part.inhparent = to_regclass(:index)
    )
    ORDER BY 1
""")


def create_index(name: str, table: str, definition: str) -> None:
    """`definition` is the part of `CREATE INDEX` after the table."""
    with op.get_context().autocommit_block():
        _build(name, table, definition)


def create_partitioned_index(name: str, table: str, definition: str) -> None:
    """Makes the index of one partition after the other. Partitions that are made meanwhile have it from the
    start."""
    index = f"webhook.{name}"
    with op.get_context().autocommit_block():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY webhook.{table} {definition}")
        given = {"table": f"webhook.{table}", "index": index}
        for partition in op.get_bind().scalars(_PARTITIONS_WITHOUT, given).all():
            part = name + partition.removeprefix(table)
            _build(part, partition, definition)
            op.execute(f"ALTER INDEX {index} ATTACH PARTITION webhook.{part}")


def _build(name: str, table: str, definition: str) -> None:
    """Nobody waits for this, so it may wait for others as long as it takes.

    An interrupted build leaves an invalid index, which is built anew.
    """
    connection = op.get_bind()
    limit = connection.scalar(text("SELECT current_setting('lock_timeout')"))
    op.execute("SET lock_timeout TO 0")
    if connection.scalar(_IS_INVALID, {"index": f"webhook.{name}"}):
        op.execute(f"DROP INDEX CONCURRENTLY webhook.{name}")
    op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON webhook.{table} {definition}")
    op.execute(f"SET lock_timeout TO '{limit}'")
