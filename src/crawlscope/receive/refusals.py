"""Remembers of which crawls a delivery had to be refused, until that can be written to the database.

A self-hosted Firecrawl never sends it again: the crawl has to be compared with what its API says.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.errors import CrawlscopeError
from crawlscope.receive import payload
from crawlscope.sessions.fold import Heard
from crawlscope.sessions.store import ensure_session, keep_fact

FILE = "refused-deliveries.jsonl"
LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Refusals:
    """Kept in a file of the data folder: the database may be away for longer than this process lives."""

    def __init__(self, data_dir: Path, database: Database) -> None:
        self._file = data_dir / FILE
        self._taken = self._file.with_suffix(".taken")
        self._database = database

    def add(self, body: bytes) -> None:
        """What names no crawl is passed over, and so is all while the file cannot be written."""
        crawl_id = payload.crawl_id_of(body)
        if crawl_id is None:
            return
        line = json.dumps({"crawl_id": crawl_id, "at": datetime.now(UTC).isoformat()})
        with suppress(OSError), self._file.open("a") as file:
            file.write(line + "\n")

    @asynccontextmanager
    async def written_down(self) -> AsyncIterator[None]:
        """Writes them to the database while the block runs, as soon as that works."""
        writing = asyncio.create_task(self._write_down())
        try:
            yield
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    async def _write_down(self) -> None:
        while True:
            try:
                await self._write_once()
            except (CrawlscopeError, OSError) as error:
                log.debug("refusals_not_written_down", reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def _write_once(self) -> None:
        if not self._taken.exists():
            if not self._file.exists():
                return
            self._file.rename(self._taken)
        refused = [json.loads(line) for line in self._taken.read_text().splitlines() if line.endswith("}")]

        async def keep(connection: AsyncConnection) -> None:
            for each in sorted(refused, key=lambda refusal: str(refusal["crawl_id"])):
                await _keep(connection, each["crawl_id"], datetime.fromisoformat(each["at"]))

        await self._database.run(keep)
        self._taken.unlink()
        log.warning("refused_deliveries", crawls=sorted({each["crawl_id"] for each in refused}))


async def _keep(connection: AsyncConnection, crawl_id: str, at: datetime) -> None:
    if await ensure_session(connection, crawl_id, at):
        await keep_fact(connection, crawl_id, Heard(at, what="refused"), "refused", at.isoformat())
