"""The numbers of rows of tables that grow without end, for lists that show how many there are.

PostgreSQL counts by reading each row. Here each transaction that adds rows or removes some adds one row that
says how many, so that none waits for another. `merge_row_counts` keeps their number small.
"""

from sqlalchemy import BigInteger, Table, TextClause, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import Select

from crawlscope import models

ROW_COUNTS = models.table_of(models.RowCount)
MAX_CHANGES = 50
"""The maximum number of rows of a table before they are merged."""
_MERGE = text("""
    WITH many AS (
        SELECT table_name FROM webhook.row_counts GROUP BY table_name HAVING count(*) > :max_changes
    ), merged AS (
        DELETE FROM webhook.row_counts WHERE table_name IN (SELECT table_name FROM many)
        RETURNING table_name, rows
    )
    INSERT INTO webhook.row_counts (table_name, rows)
    SELECT table_name, sum(rows) FROM merged GROUP BY table_name
""")
"""If two run at once, the second one finds the rows deleted that the first has merged."""
_CORRECT = """
    WITH counts AS (
        SELECT (SELECT coalesce(sum(rows), 0) FROM webhook.row_counts WHERE table_name = '{table.name}')
                AS was,
            (SELECT count(*) FROM {table.fullname}) AS counted
    ), corrected AS (
        INSERT INTO webhook.row_counts (table_name, rows)
        SELECT '{table.name}', counted - was FROM counts WHERE counted <> was
    )
    SELECT was::bigint, counted FROM counts
"""
"""One snapshot has the rows of a transaction with the row that counts them, or neither."""
_LOCK = text("SELECT pg_advisory_xact_lock(7108, 7)")


def counted(table: Table, rows: str) -> str:
    """The SQL that notes so many new rows of `table`, if any: an SQL expression."""
    return f"INSERT INTO webhook.row_counts (table_name, rows) SELECT '{table.name}', {rows} WHERE {rows} > 0"


def counting(table: Table, rows: str, insert: str) -> TextClause:
    """The statement `insert`, which also notes that it adds so many rows to `table`: an SQL expression."""
    return text(f"WITH counted AS ({counted(table, rows)}) {insert}")


async def count_rows(connection: AsyncConnection, table: Table, rows: int) -> None:
    """Notes that this transaction adds so many rows, or removes as many as a negative number says."""
    if rows:
        await connection.execute(ROW_COUNTS.insert().values(table_name=table.name, rows=rows))


def number_of_rows(table: Table) -> Select[int]:
    number = cast(func.coalesce(func.sum(ROW_COUNTS.c.rows), 0), BigInteger)
    return select(number).where(ROW_COUNTS.c.table_name == table.name)


async def merge_row_counts(connection: AsyncConnection) -> int:
    """Returns of how many tables. Any number of processes may do so at once."""
    return (await connection.execute(_MERGE, {"max_changes": MAX_CHANGES})).rowcount


async def recount_rows(connection: AsyncConnection, table: Table) -> tuple[int, int]:
    """Corrects the number; returns the former number and the present one. Reads the whole table."""
    await connection.execute(_LOCK)  # two at once would both correct it
    await connection.execute(text(f"LOCK TABLE {table.fullname} IN ACCESS SHARE MODE"))  # partitions stay
    was, counted = (await connection.execute(text(_CORRECT.format(table=table)))).one()
    return was, counted
