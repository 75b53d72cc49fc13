"""Makes partitions for the next months, and drops the bodies of old deliveries."""

from datetime import UTC, datetime, timedelta

import structlog

from crawlscope.core.periodic import run_periodically
from crawlscope.database.engine import Database
from crawlscope.timing.partitions import make_partitions
from crawlscope.webhooks.retention import drop_bodies

INTERVAL_SECONDS = 3_600.0
RETRY_SECONDS = 300.0

log = structlog.get_logger(__name__)


async def drop_old_bodies(database: Database, keep_days: int) -> None:
    """Until it is cancelled; any number of processes may run it."""

    async def drop() -> None:
        dropped = await drop_bodies(database, datetime.now(UTC) - timedelta(days=keep_days))
        if dropped:
            log.info("bodies_deleted", deliveries=dropped)

    await run_periodically(
        drop,
        interval_seconds=INTERVAL_SECONDS,
        retry_seconds=INTERVAL_SECONDS,
        failure_event="body_deletion_failed",
    )


async def make_monthly_partitions(database: Database) -> None:
    """Until it is cancelled; any number of processes may run it."""

    async def make() -> None:
        for name in await make_partitions(database, datetime.now(UTC)):
            log.info("partition_added", name=name)

    await run_periodically(
        make,
        interval_seconds=INTERVAL_SECONDS,
        retry_seconds=RETRY_SECONDS,
        failure_event="partitions_delayed",
    )
