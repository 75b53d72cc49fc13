"""The SQL of outages: which parts a worker waits for, where others can read it."""

from contextlib import suppress
from datetime import timedelta

import structlog
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert as upsert

from crawlscope import models
from crawlscope.core.errors import DependencyError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database

OUTAGES = models.table_of(models.Outage)
FORGOTTEN_AFTER = timedelta(minutes=10)
"""Who waits reports more often: such a row is of a worker that is gone."""

log = structlog.get_logger(__name__)


class Outages:
    """Those that one worker knows of. Without the database they are only logged."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker
        self._away: set[str] = set()

    async def note(self, part: str, reason: str) -> None:
        """May be called again for as long as it lasts."""
        reason = storable(reason)
        if part not in self._away:
            log.warning("part_away", part=part, reason=reason)
            self._away.add(part)
        row = upsert(OUTAGES).values(part=part, worker=self._worker, reason=reason)
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    delete(OUTAGES).where(OUTAGES.c.reported_at < func.now() - FORGOTTEN_AFTER)
                )
                await connection.execute(
                    row.on_conflict_do_update(
                        index_elements=["part", "worker"],
                        set_={"reported_at": func.now(), "reason": reason},
                    )
                )
        except DependencyError as error:
            log.debug("outage_not_noted", part=part, reason=str(error))

    async def end(self, part: str) -> None:
        """Forgets a part that is back. Raises `DatabaseUnavailable` where it was known to be away."""
        if part not in self._away:
            return
        async with self._database.transaction() as connection:
            await connection.execute(
                delete(OUTAGES).where(OUTAGES.c.part == part, OUTAGES.c.worker == self._worker)
            )
        self._away.discard(part)
        log.info("part_back", part=part)

    async def end_all(self) -> None:
        """When the worker ends: who takes over sees for itself. Never raises."""
        with suppress(DependencyError):
            for part in sorted(self._away):
                await self.end(part)
