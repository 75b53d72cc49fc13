"""The data of the dashboard that the API does not answer: pages on a time axis, failures by cause, one page
with its history, and the work of the workers."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import NotFoundError
from crawlscope.database.engine import Database
from crawlscope.insights import inspection_queries as queries
from crawlscope.insights.inspection_queries import SpanOrder, WhichPages
from crawlscope.insights.queries import crawl_exists, row_of, rows_of, slice_of
from crawlscope.pages.delivered import markdown_of

Row = Mapping[Any, Any]

RECENTLY = timedelta(minutes=5)
ERRORS_SINCE = timedelta(hours=24)
REMEMBERED_SPARKLINES = 2_000


@dataclass(frozen=True)
class Spans:
    rows: Sequence[Row]
    total: int
    """The number of all pages that match."""


@dataclass(frozen=True)
class CrawlSpan:
    """The times at the ends of the indexing; None while no page was received, queued or settled."""

    first_received_at: datetime | None
    first_queued_at: datetime | None
    last_settled_at: datetime | None


@dataclass(frozen=True)
class PageDetails:
    page: Row
    operations: Sequence[Row]
    history: Sequence[Row]
    """The page in each crawl that has it, the latest crawl first."""
    delivery: Row | None
    """The delivery that brought its content, with the compressed body, while that is known."""
    document: Row | None
    """The document of the page's final URL."""


@dataclass(frozen=True)
class Activity:
    """The present work of the installation."""

    queue: Row
    attempts: Sequence[Row]
    throughput: Row
    over_seconds: float
    outages: Sequence[Row]
    errors: Sequence[Row]


@dataclass
class Inspection:
    """Methods that take a crawl's id raise `NotFoundError` for an unknown crawl."""

    database: Database
    _sparklines: dict[tuple[str, int, datetime | None], list[int]] = field(default_factory=dict)
    """By crawl, number of its pages and time of the last one."""

    async def spans(
        self,
        crawl_id: str,
        which: WhichPages | None = None,
        order: SpanOrder = SpanOrder.STARTED,
        limit: int = 100,
        offset: int = 0,
    ) -> Spans:
        which = which or WhichPages()
        async with self._known(crawl_id) as connection:
            rows = await rows_of(connection, slice_of(queries.spans(crawl_id, which, order), limit, offset))
            return Spans(rows, await connection.scalar(queries.count_of_spans(crawl_id, which)) or 0)

    async def slowest(self, crawl_id: str, limit: int) -> Sequence[Row]:
        """As the rows of `spans`, without pages that were not measured."""
        async with self._known(crawl_id) as connection:
            slowest = queries.spans(crawl_id, WhichPages(), SpanOrder.SLOWEST)
            rows = await rows_of(connection, slice_of(slowest, limit, 0))
            return [row for row in rows if row["total_ms"] is not None]

    async def span(self, crawl_id: str) -> CrawlSpan:
        async with self.database.transaction() as connection:
            return CrawlSpan(**await row_of(connection, queries.span_of_crawl(crawl_id)))

    async def causes(self, crawl_id: str) -> Sequence[Row]:
        """Failed pages by error code: `code`, `pages`, `with_content`, `reason`, `status_code`, `last_at`,
        `examples`."""
        async with self._known(crawl_id) as connection:
            return await rows_of(connection, queries.causes(crawl_id))

    async def urls_of_cause(self, crawl_id: str, cause: str | None) -> list[str]:
        """The first 10,000 source URLs of failed pages with this error code."""
        async with self._known(crawl_id) as connection:
            return list((await connection.scalars(queries.urls_of_cause(crawl_id, cause))).all())

    async def sparklines(self, crawls: Sequence[Row], buckets: int = 32) -> dict[str, list[int]]:
        """By crawl the number of pages that settled in each part of its time. `crawls` have `crawl_id`,
        `total_pages` and `searchable_at`; a crawl that has not changed is not counted again."""
        keys = {
            each["crawl_id"]: (each["crawl_id"], each["total_pages"], each["searchable_at"])
            for each in crawls
        }
        missing = [crawl_id for crawl_id, key in keys.items() if key not in self._sparklines]
        if missing:
            async with self.database.transaction() as connection:
                counted = {crawl_id: [0] * buckets for crawl_id in missing}
                for row in await rows_of(connection, queries.settled_over_time(missing, buckets)):
                    counted[row["crawl_id"]][int(row["bucket"])] = row["pages"]
            while len(self._sparklines) > REMEMBERED_SPARKLINES:
                self._sparklines.pop(next(iter(self._sparklines)))
            self._sparklines |= {keys[crawl_id]: counts for crawl_id, counts in counted.items()}
        return {crawl_id: self._sparklines[key] for crawl_id, key in keys.items()}

    async def page(self, crawl_id: str, url: str) -> PageDetails:
        """The page with this source URL. Raises `NotFoundError`."""
        async with self._known(crawl_id) as connection:
            found = (await rows_of(connection, queries.page(crawl_id, url)))[:1]
            if not found:
                raise NotFoundError(f"Page not found in crawl {crawl_id}: {url}")
            page = {**found[0], "markdown": markdown_of(found[0])}
            brought = queries.deliveries_of_page(crawl_id, page["webhook_id"])
            delivery = (await rows_of(connection, brought))[:1] if page["webhook_id"] else []
            document = await rows_of(connection, queries.document_in_index(page["document_key"]))
            return PageDetails(
                page=page,
                operations=await rows_of(connection, queries.operations_of_page(crawl_id, url)),
                history=await rows_of(connection, queries.history_of_page(url)),
                delivery=delivery[0] if delivery else None,
                document=document[0] if document else None,
            )

    async def delivery(self, crawl_id: str, delivery_id: int) -> Row:
        """One delivery with its compressed body. Raises `NotFoundError`."""
        async with self._known(crawl_id) as connection:
            found = await rows_of(connection, queries.delivery(crawl_id, delivery_id))
            if not found:
                raise NotFoundError(f"Delivery not found in crawl {crawl_id}: {delivery_id}")
            return found[0]

    async def activity(self) -> Activity:
        now = datetime.now(UTC)
        async with self.database.transaction() as connection:
            return Activity(
                queue=await row_of(connection, queries.queue()),
                attempts=await rows_of(connection, queries.open_attempts()),
                throughput=await row_of(connection, queries.throughput(now - RECENTLY)),
                over_seconds=RECENTLY.total_seconds(),
                outages=await rows_of(connection, queries.all_outages()),
                errors=await rows_of(connection, queries.recent_errors(now - ERRORS_SINCE)),
            )

    @asynccontextmanager
    async def _known(self, crawl_id: str) -> AsyncIterator[AsyncConnection]:
        async with self.database.transaction() as connection:
            if await connection.scalar(crawl_exists(crawl_id)) is None:
                raise NotFoundError(f"Crawl not found: {crawl_id}")
            yield connection
