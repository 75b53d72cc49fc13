"""How many connections to PostgreSQL each process may hold, so that all together fit the server's limit.

A process never opens more than its share: what needs a connection meanwhile waits for one.
"""

from sqlalchemy import text

from crawlscope.database.engine import Database

SERVICE = 24
"""Of the API process."""
WORKER = 4
"""Of a worker: two pages in progress, re-indexing beside them, and reports."""
WORKER_QUEUE = 3
"""Of a worker besides: one listens for jobs."""
SUPERVISOR = 1
"""Of `up`."""
OTHERS = 12
"""Left to commands, backups and people."""

_LIMIT = text("""
    SELECT least(
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int,
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
    )
""")


def needed(workers: int) -> int:
    """Connections of `up` with so many indexing workers; the crawler's worker is one more."""
    return SUPERVISOR + SERVICE + (workers + 1) * (WORKER + WORKER_QUEUE) + OTHERS


def workers_within(limit: int) -> int:
    """How many indexing workers a limit of connections has room for; at least 1."""
    return max(1, (limit - needed(0)) // (WORKER + WORKER_QUEUE))


async def limit_of(database: Database) -> int:
    """How many connections the server lets this user open. Raises `DatabaseUnavailable`."""
    async with database.transaction() as connection:
        return int((await connection.execute(_LIMIT)).scalar_one())
