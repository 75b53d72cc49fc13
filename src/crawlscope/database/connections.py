"""How many connections to PostgreSQL each process may hold, so that all together fit the server's limit.

A process never opens more than its share: what needs a connection meanwhile waits for one.
"""

import structlog
from sqlalchemy import text

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import Database

SERVICE = 24
"""Connections of an API process."""
WORKER = 4
"""Connections of a worker: for claims, outcomes, reindexing and reports."""
WORKER_QUEUE = 3
"""Further connections of a worker, for the queue: one of them listens for jobs."""
SUPERVISOR = 1
"""Connections of `up`."""
OTHERS = 12
"""Connections that are left for commands, backups and people."""

_LIMIT = text("""
    SELECT least(
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int,
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
    )
""")


log = structlog.get_logger(__name__)


def needed(workers: int, api_processes: int = 1) -> int:
    """Connections of `up` with `workers` indexing workers; the crawler's worker is one more."""
    return SUPERVISOR + api_processes * SERVICE + (workers + 1) * (WORKER + WORKER_QUEUE) + OTHERS


def workers_within(limit: int, api_processes: int = 1) -> int:
    """Number of indexing workers for which `limit` connections suffice; at least 1."""
    return max(1, (limit - needed(0, api_processes)) // (WORKER + WORKER_QUEUE))


async def limit_of(database: Database) -> int:
    """How many connections the server lets this user open. Raises `DatabaseUnavailable`."""
    async with database.transaction() as connection:
        return int((await connection.execute(_LIMIT)).scalar_one())


async def affordable_workers(database: Database, configured: int, api_processes: int = 1) -> int:
    """As many as the server's connections suffice for; all of them while it is down."""
    try:
        limit = await limit_of(database)
    except DatabaseUnavailable:
        return configured
    workers = min(configured, workers_within(limit, api_processes))
    if workers < configured:
        log.warning(
            "workers_limited",
            started=workers,
            configured=configured,
            reason=f"PostgreSQL allows this user {limit} connections and "
            f"{needed(configured, api_processes)} are needed: raise its max_connections, or lower "
            "CRAWLSCOPE_WORKERS",
        )
    return workers
