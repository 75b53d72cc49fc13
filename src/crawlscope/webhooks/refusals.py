"""Remembers of which crawls a delivery had to be refused, until that can be written to the database.

A self-hosted Firecrawl never sends it again: the crawl has to be compared with what its API says.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import structlog
from pydantic import AwareDatetime, BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.file_lock import is_open_at
from crawlscope.crawls.reconciliations import note_news
from crawlscope.database.engine import Database
from crawlscope.sessions.fold import Heard
from crawlscope.sessions.store import ensure_session, keep_fact
from crawlscope.webhooks import payload

FILE = "refused-deliveries.jsonl"
TAKEN = "refused-deliveries*.taken"
"""What nobody adds to any more, and is about to be written to the database."""
LOOK_SECONDS = 1.0

Refused = Mapping[str, list[datetime]]
"""Per crawl the times of its first and last refusal."""

log = structlog.get_logger(__name__)


class Refusal(BaseModel):
    crawl_id: str
    at: AwareDatetime


class Refusals:
    """Kept in a file of the data folder: the database may be away for longer than this process lives.

    Any number of processes may share the folder. Two can write the same down, which changes nothing.
    """

    def __init__(self, data_dir: Path, database: Database) -> None:
        self._file = data_dir / FILE
        self._database = database

    def add(self, body: bytes) -> None:
        """What names no crawl is passed over, and so is all while the file cannot be written."""
        crawl_id = payload.crawl_id_of(body)
        if crawl_id is None:
            return
        refusal = Refusal(crawl_id=crawl_id, at=datetime.now(UTC)).model_dump_json()
        with suppress(OSError):
            while not self._append(refusal):
                pass

    def _append(self, refusal: str) -> bool:
        """False where another process took the file, perhaps before this was in it."""
        with self._file.open("a") as file:
            file.write(f"\n{refusal}\n")  # the line before may be cut off: the disk was full
            file.flush()
            return is_open_at(file.fileno(), self._file)

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
                for taken in self._taken():
                    await self._write_once(taken)
            except (CrawlscopeError, OSError) as error:
                log.debug("refusals_not_written_down", reason=str(error))
            except Exception:
                log.exception("refusals_not_written_down")
            await asyncio.sleep(LOOK_SECONDS)

    def _taken(self) -> list[Path]:
        left = list(self._file.parent.glob(TAKEN))
        if left or not self._file.exists():
            return left
        return [self._file.rename(self._file.with_suffix(f".{uuid4().hex}.taken"))]

    async def _write_once(self, taken: Path) -> None:
        refused = await asyncio.to_thread(_refused, taken)

        async def keep(connection: AsyncConnection) -> None:
            for crawl_id in sorted(refused):
                await _keep(connection, crawl_id, refused[crawl_id])

        await self._database.run(keep)
        await asyncio.to_thread(taken.unlink, missing_ok=True)
        log.warning("refused_deliveries", crawls=sorted(refused))


def _refused(file: Path) -> Refused:
    """What was not written to its end is passed over."""
    times = defaultdict(list)
    for line in file.read_bytes().split(b"\n"):
        with suppress(ValidationError):
            refusal = Refusal.model_validate_json(line)
            times[refusal.crawl_id].append(refusal.at)
    return {crawl_id: sorted({min(each), max(each)}) for crawl_id, each in times.items()}


async def _keep(connection: AsyncConnection, crawl_id: str, times: list[datetime]) -> None:
    if await ensure_session(connection, crawl_id, times[0]):
        for at in times:
            await keep_fact(connection, crawl_id, Heard(at, what="refused"), "refused", at.isoformat())
        await note_news(connection, crawl_id)
