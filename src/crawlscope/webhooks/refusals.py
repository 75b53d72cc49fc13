"""Refused deliveries: their causes, a log with few lines, and the crawls that lost something by them.

A self-hosted Firecrawl never sends a delivery again: the crawl has to be compared with its API.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from uuid import uuid4

import structlog
from pydantic import AwareDatetime, BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.file_lock import is_open_at
from crawlscope.core.periodic import in_background, run_periodically
from crawlscope.crawls.reconciliations import note_news
from crawlscope.database.engine import Database
from crawlscope.sessions.fold import CrawlSeen
from crawlscope.sessions.repository import ensure_session, keep_fact
from crawlscope.webhooks import payload

LOG_INTERVAL_SECONDS = 60.0
FILE = "refused-deliveries.jsonl"
TAKEN = "refused-deliveries*.taken"
"""Files to which no process adds any more, about to be written to the database."""
RETRY_SECONDS = 1.0
POLL_INTERVAL_SECONDS = 5.0
"""Between two looks for refusals that another process left."""

log = structlog.get_logger(__name__)


class Cause(StrEnum):
    """The cause of a refusal, stored with the request and counted by it. The body of an unauthenticated
    request is not stored."""

    NO_CREDENTIALS = "no_credentials"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - the cause's name
    BAD_SIGNATURE = "bad_signature"
    NO_SIGNING_SECRET = "no_signing_secret"  # noqa: S105
    """The request is signed, and no secret is set that could verify it."""
    WRONG_TOKEN = "wrong_token"  # noqa: S105
    NO_TOKEN = "no_token"  # noqa: S105
    """The request's URL has a token, and none is set."""
    WRONG_PATH = "wrong_path"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    UNREADABLE = "unreadable"
    MALFORMED = "malformed"
    UNAVAILABLE = "unavailable"
    """It could not be committed: the database is unavailable, or the disk nearly full."""


BY_STATUS = {
    400: Cause.UNREADABLE,
    404: Cause.WRONG_PATH,
    405: Cause.WRONG_PATH,
    413: Cause.TOO_LARGE,
    415: Cause.WRONG_TYPE,
    422: Cause.MALFORMED,
    503: Cause.UNAVAILABLE,
}
"""For a refusal without a cause of its own."""


@dataclass
class _Logged:
    at: float
    count_since: int = 0


class RefusalLog:
    """At most one line per minute and cause, with the number of refusals since the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: defaultdict[Cause, _Logged] = defaultdict(lambda: _Logged(-LOG_INTERVAL_SECONDS))

    def note(self, cause: Cause, status: int, sender: str | None, reason: str | None) -> None:
        logged = self._logged[cause]
        logged.count_since += 1
        if self._clock() - logged.at < LOG_INTERVAL_SECONDS:
            return
        further = {"reason": reason} if reason else {}
        log.warning(
            "delivery_refused",
            cause=cause.value,
            status=status,
            sender=sender,
            count=logged.count_since,
            **further,
        )
        self._logged[cause] = _Logged(self._clock())


class Refusal(BaseModel):
    crawl_id: str
    at: AwareDatetime


class Refusals:
    """Stores refusals in a file of the data folder: the database may be unavailable for longer than this
    process lives.

    Any number of processes may share the folder. Two can write the same down, which changes nothing.
    """

    def __init__(self, data_dir: Path, database: Database) -> None:
        self._file = data_dir / FILE
        self._database = database
        self._added = asyncio.Event()

    def add(self, body: bytes) -> None:
        """Ignores a body that names no crawl, and any while the file cannot be written."""
        crawl_id = payload.crawl_id_of(body)
        if crawl_id is None:
            return
        refusal = Refusal(crawl_id=crawl_id, at=datetime.now(UTC)).model_dump_json()
        with suppress(OSError):
            is_kept = False
            while not is_kept:  # another process may take the file, perhaps before this is in it
                with self._file.open("a") as file:
                    file.write(f"\n{refusal}\n")  # the line before may be cut off: the disk was full
                    file.flush()
                    is_kept = is_open_at(file.fileno(), self._file)
        self._added.set()

    @asynccontextmanager
    async def stored_in_background(self) -> AsyncIterator[None]:
        """Stores them in the database while the block runs, as soon as that works."""
        writing = run_periodically(
            self.store,
            interval_seconds=POLL_INTERVAL_SECONDS,
            retry_seconds=RETRY_SECONDS,
            failure_event="refusal_storage_failed",
            news=self._added,
        )
        async with in_background(writing):
            yield

    async def store(self) -> None:
        """Writes the refusals so far to the database. Raises `DatabaseUnavailable`, `OSError`."""

        async def keep(connection: AsyncConnection, refused: Mapping[str, list[datetime]]) -> None:
            """The first and the last refusal of each crawl."""
            for crawl_id, times in sorted(refused.items()):
                if await ensure_session(connection, crawl_id, times[0]):
                    for at in times:
                        fact = CrawlSeen(at, what="refused")
                        await keep_fact(connection, crawl_id, fact, "refused", at.isoformat())
                    await note_news(connection, crawl_id)

        files = list(self._file.parent.glob(TAKEN))
        if not files and self._file.exists():
            files = [self._file.rename(self._file.with_suffix(f".{uuid4().hex}.taken"))]
        for file in files:
            times = defaultdict(list)
            for line in (await asyncio.to_thread(file.read_bytes)).split(b"\n"):
                with suppress(ValidationError):  # a line may be cut off
                    refusal = Refusal.model_validate_json(line)
                    times[refusal.crawl_id].append(refusal.at)
            refused = {crawl_id: sorted({min(each), max(each)}) for crawl_id, each in times.items()}
            await self._database.run(partial(keep, refused=refused))
            await asyncio.to_thread(file.unlink, missing_ok=True)
            log.warning("refusals_stored", crawls=sorted(refused))
