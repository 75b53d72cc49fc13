"""The common base of the recorder's benchmarks: databases of their own, crawls as the service records them,
and answers about many of them against answers about few."""

import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text

from benchmarks.part import Row, number
from crawlscope.core.vocabulary import OperationType
from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database, sqlalchemy_url
from crawlscope.insights.service import Insights
from crawlscope.timing import TimingContext

Question = Callable[[Insights], Awaitable[BaseModel]]

STAGES = (
    (OperationType.WORKER, "index_document", 40.0),
    (OperationType.CHUNKING, "chunk_text", 4.0),
    (OperationType.EMBEDDING, "embed_batch", 28.0),
    (OperationType.BM25, "index_document", 1.0),
    (OperationType.QDRANT, "index_chunks", 5.0),
)
"""The operations of each page, with the usual milliseconds."""


@asynccontextmanager
async def two_databases(large: str, small: str) -> AsyncIterator[tuple[Database, Database]]:
    """New ones of these names on one new server."""
    with (
        TemporaryDirectory(prefix="crawlscope-benchmark-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        opened = [await _opened(server.url, name) for name in (large, small)]
        try:
            yield opened[0], opened[1]
        finally:
            for each in opened:
                await each.close()


async def _opened(url: str, name: str) -> Database:
    admin = Database.open(url, pool_size=1)
    await _by_itself(admin, f"CREATE DATABASE {name}")
    await admin.close()
    named = sqlalchemy_url(url).set(drivername="postgresql", database=name)
    database = Database.open(named.render_as_string(hide_password=False), statement_seconds=None)
    await schema.upgrade(database)
    return database


async def vacuum(database: Database) -> None:
    await _by_itself(database, "VACUUM ANALYZE")


async def _by_itself(database: Database, statement: str) -> None:
    """Outside of a transaction."""
    async with database.engine.connect() as connection:
        session = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await session.execute(text(statement))


def event(crawl_id: str, kind: str, **further: Any) -> bytes:
    """The body of a delivery; `further` fields replace the usual ones."""
    usual = {"type": kind, "id": crawl_id, "success": True, "webhookId": kind, "data": []}
    return json.dumps(usual | further).encode()


def operation(
    stage: tuple[str, str, float], at: datetime, random: Random, spread: float, **ids: str
) -> TimingContext:
    """`spread` is the standard deviation of the logarithm of its duration."""
    kind, name, usual_ms = stage
    duration = timedelta(milliseconds=usual_ms * random.lognormvariate(0, spread))
    return TimingContext.past(kind, name, at, at + duration, **ids)


@dataclass(frozen=True)
class Comparison:
    """The comparison of two databases, queried in turns."""

    part: str
    large: Insights
    small: Insights
    rounds: int

    async def row(self, name: str, ask: Question, whose: str, at_most: float | None) -> Row:
        """The median time of an answer as JSON, against that of the small one, which is `whose`."""
        turns = [
            (await seconds(_answered(ask, self.large)), await seconds(_answered(ask, self.small)))
            for _ in range(self.rounds + 1)
        ][1:]
        long, short = (statistics.median(times) * 1000 for times in zip(*turns, strict=True))
        against = f"{whose} {number(short)} ms"
        return Row(self.part, name, long, "ms", against, long / short, at_most=at_most)


async def _answered(ask: Question, insights: Insights) -> str:
    return (await ask(insights)).model_dump_json()


async def seconds(work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began
