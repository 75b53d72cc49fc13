"""The one read service behind every face: what is known of crawls, pages and the time everything took."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import NotFoundError
from crawlscope.core.vocabulary import CrawlStatus, Engine, NotificationState, PageState, ReconcileState
from crawlscope.database.engine import Database
from crawlscope.indexing.generations import repository as generations
from crawlscope.insights import queries
from crawlscope.insights.changes import ChangeListResponse, ChangeRow, changes
from crawlscope.insights.compare import compare
from crawlscope.insights.notifications import NotificationListResponse, NotificationRow, notifications
from crawlscope.insights.queries import PageSort, Rows
from crawlscope.insights.responses import (
    AggregateTiming,
    AttemptListResponse,
    AttemptRow,
    CrawlComparison,
    CrawlListResponse,
    CrawlMetricsResponse,
    CrawlTotals,
    DeliveryListResponse,
    DeliveryRow,
    OperationListResponse,
    OperationRow,
    OperationStats,
    PageListResponse,
    PageMetric,
    PageRow,
    QueueWait,
    ReconciliationInfo,
    RefusedDeliveries,
    RequestListResponse,
    RequestRow,
    RequestTotals,
    StatsResponse,
    SummaryResponse,
    Verdict,
)
from crawlscope.insights.rows import by_crawl, row_of, rows_of
from crawlscope.insights.sealing import Sealing, sealing
from crawlscope.insights.searchable import searchable_at, time_to_searchable_ms
from crawlscope.insights.verdicts import verdicts_of

DEFAULT_LIMIT = 50


class Insights:
    """Each answer is of one moment: its numbers agree with each other, also while a crawl runs.

    Whoever asks for a crawl that nobody knows gets `NotFoundError`.
    """

    def __init__(
        self, database: Database, quiet_seconds: float = 300.0, *, asks_firecrawl: bool = False
    ) -> None:
        """`quiet_seconds` is how long a crawl may be silent before that says something; `asks_firecrawl`,
        whether crawls are compared with a Firecrawl."""
        self._quiet_seconds = quiet_seconds
        self._asks_firecrawl = asks_firecrawl
        snapshots = database.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._snapshots = Database(snapshots)

    async def crawls(
        self,
        status: CrawlStatus | None = None,
        url: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> CrawlListResponse:
        """Newest first. `url` is any part of a crawl's URL; started at `since` or later, before `until`."""
        matching = queries.crawls(status, url, since, until)
        async with self._snapshots.transaction() as connection:
            total, sessions = await _slice(connection, matching, limit, offset)
            return CrawlListResponse(crawls=await self._measured(connection, sessions), total=total)

    async def crawl(self, crawl_id: str, include_per_page: bool = False) -> CrawlMetricsResponse:
        async with self._known(crawl_id) as connection:
            session = await row_of(connection, queries.crawl(crawl_id))
            [crawl] = await self._measured(connection, [session])
            if include_per_page:
                operations = await rows_of(connection, queries.page_metrics(crawl_id))
                crawl.per_page_metrics = [PageMetric(**row) for row in operations]
            return crawl

    async def compare(self, crawl_id: str, against: str) -> CrawlComparison:
        async with self._known(crawl_id, against) as connection:
            sessions = [await row_of(connection, queries.crawl(each)) for each in (crawl_id, against)]
            return compare(*await self._measured(connection, sessions))

    async def pages(
        self,
        crawl_id: str,
        state: PageState | None = None,
        sort: PageSort = PageSort.RECENT,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> PageListResponse:
        """`recent` is by the last thing that happened to a page; what was not measured is never `slowest`."""
        matching = queries.pages(crawl_id, state, sort)
        async with self._known(crawl_id) as connection:
            total, rows = await _slice(connection, matching, limit, offset)
            return PageListResponse(pages=[_page(row) for row in rows], total=total)

    async def attempts(self, crawl_id: str, url: str) -> AttemptListResponse:
        """All attempts at the page with this source URL, the first one first."""
        async with self._known(crawl_id) as connection:
            page_id = await connection.scalar(queries.page_id(crawl_id, url))
            if page_id is None:
                raise NotFoundError(f"Page not found in crawl {crawl_id}: {url}")
            rows = await rows_of(connection, queries.attempts(page_id))
            return AttemptListResponse(attempts=[AttemptRow(**row) for row in rows], total=len(rows))

    async def deliveries(
        self, crawl_id: str, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> DeliveryListResponse:
        async with self._known(crawl_id) as connection:
            total, rows = await _slice(connection, queries.deliveries(crawl_id), limit, offset)
            return DeliveryListResponse(deliveries=[DeliveryRow(**row) for row in rows], total=total)

    async def operations(
        self,
        crawl_id: str | None = None,
        operation_type: str | None = None,
        operation_name: str | None = None,
        job_id: str | None = None,
        document_url: str | None = None,
        url: str | None = None,
        success: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> OperationListResponse:
        """Newest first. `document_url` is a whole URL and found by an index, `url` any part of one."""
        matching = queries.operations(
            since,
            until,
            url,
            success,
            crawl_id=crawl_id,
            operation_type=operation_type,
            operation_name=operation_name,
            job_id=job_id,
            document_url=document_url,
        )
        async with self._snapshots.transaction() as connection:
            total, rows = await _slice(connection, matching, limit, offset)
            return OperationListResponse(operations=[OperationRow(**row) for row in rows], total=total)

    async def requests(
        self,
        url: str | None = None,
        method: str | None = None,
        status_code: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> RequestListResponse:
        """Newest first. `url` is any part of the path."""
        matching = queries.requests(since, until, url, method, status_code)
        async with self._snapshots.transaction() as connection:
            total, rows = await _slice(connection, matching, limit, offset)
            return RequestListResponse(requests=[RequestRow(**row) for row in rows], total=total)

    async def notifications(
        self, state: NotificationState | None = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> NotificationListResponse:
        """Newest first."""
        async with self._snapshots.transaction() as connection:
            total, rows = await _slice(connection, notifications(state), limit, offset)
            return NotificationListResponse(
                notifications=[NotificationRow(**row) for row in rows], total=total
            )

    async def changes(
        self, url: str | None = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> ChangeListResponse:
        """Newest first. `url` is any part of the page's URL."""
        async with self._snapshots.transaction() as connection:
            total, rows = await _slice(connection, changes(url), limit, offset)
            return ChangeListResponse(changes=[ChangeRow(**row) for row in rows], total=total)

    async def summary(self, hours: int = 24) -> SummaryResponse:
        """Totals of the last `hours`: crawls that started, operations and requests that began."""
        until = datetime.now(UTC)
        since = until - timedelta(hours=hours)
        async with self._snapshots.transaction() as connection:
            crawls = await row_of(connection, queries.crawl_totals(since, until))
            operations = await rows_of(connection, queries.operation_totals(since, until))
            requests = await row_of(connection, queries.request_totals(since, until))
            refused = await rows_of(connection, queries.refused_deliveries(since, until))
        return SummaryResponse(
            hours=hours,
            since=since,
            until=until,
            crawls=CrawlTotals(**crawls),
            operations={row["operation_type"]: OperationStats(**row) for row in operations},
            requests=RequestTotals(**requests),
            refused_deliveries=[RefusedDeliveries(**row) for row in refused],
        )

    async def stats(self) -> StatsResponse:
        """Without what the index says of itself."""
        async with self._snapshots.transaction() as connection:
            stats = StatsResponse(**await row_of(connection, queries.stats()))
            if serving := (await generations.live(connection)).serving:
                stats.embedder, stats.index_problem = serving.recipe.identity.description, serving.problem
            return stats

    async def _measured(
        self, connection: AsyncConnection, sessions: Sequence[RowMapping]
    ) -> list[CrawlMetricsResponse]:
        """A few queries for all of the sessions together."""
        crawl_ids = [session["crawl_id"] for session in sessions]
        if not crawl_ids:
            return []
        operations: dict[str, dict[str, OperationStats]] = defaultdict(dict)
        for row in await rows_of(connection, queries.operation_stats(crawl_ids)):
            operations[row["crawl_id"]][row["operation_type"]] = OperationStats(**row)
        waits = {
            row["crawl_id"]: QueueWait(**row)
            for row in await rows_of(connection, queries.queue_waits(crawl_ids))
        }
        checks = await by_crawl(connection, queries.reconciliations(crawl_ids))
        sealings = {
            each["crawl_id"]: sealing(each, checks.get(each["crawl_id"]), self._asks_firecrawl)
            for each in sessions
        }
        verdicts = await verdicts_of(connection, sessions, checks, sealings, self._quiet_seconds)
        failed = await by_crawl(connection, queries.failed_at_crawler(_at_firecrawl(sessions)))
        cancels = await by_crawl(connection, queries.cancel_requests(crawl_ids))
        return [
            _crawl(
                each,
                operations[each["crawl_id"]],
                waits.get(each["crawl_id"]),
                sealings[each["crawl_id"]],
                verdicts.get(each["crawl_id"]),
                _reconciliation(checks.get(each["crawl_id"])),
                _expected(each, checks.get(each["crawl_id"]), failed.get(each["crawl_id"])),
                each["crawl_id"] in cancels,
            )
            for each in sessions
        ]

    @asynccontextmanager
    async def _known(self, *crawl_ids: str) -> AsyncIterator[AsyncConnection]:
        async with self._snapshots.transaction() as connection:
            for crawl_id in crawl_ids:
                if await connection.scalar(queries.crawl_exists(crawl_id)) is None:
                    raise NotFoundError(f"Crawl not found: {crawl_id}")
            yield connection


async def _slice(
    connection: AsyncConnection, matching: Rows, limit: int, offset: int
) -> tuple[int, Sequence[RowMapping]]:
    total = await connection.scalar(queries.count_of(matching))
    return total or 0, await rows_of(connection, queries.slice_of(matching, limit, offset))


def _crawl(
    session: RowMapping,
    operations: dict[str, OperationStats],
    queue_wait: QueueWait | None,
    sealing: Sealing,
    verdict: Verdict | None,
    reconciliation: ReconciliationInfo | None,
    pages_expected: int | None,
    cancel_requested: bool,
) -> CrawlMetricsResponse:
    return CrawlMetricsResponse(
        **session,
        aggregate_timing=AggregateTiming(
            chunking_ms=session["total_chunking_ms"],
            embedding_ms=session["total_embedding_ms"],
            qdrant_ms=session["total_qdrant_ms"],
            bm25_ms=session["total_bm25_ms"],
        ),
        per_page_metrics=None,
        searchable_at=searchable_at(session),
        time_to_searchable_ms=time_to_searchable_ms(session),
        operations=operations,
        queue_wait=queue_wait or QueueWait(),
        sealed=sealing.sealed,
        completeness=sealing.completeness,
        reservation=sealing.reservation,
        awaits=verdict.awaits if verdict else None,
        verdict=verdict,
        reconciliation=reconciliation,
        pages_expected=pages_expected,
        cancel_requested=cancel_requested,
    )


def _at_firecrawl(sessions: Sequence[RowMapping]) -> list[str]:
    """Those that go on, and not here."""
    return [
        each["crawl_id"]
        for each in sessions
        if each["completed_at"] is None and each["engine"] != Engine.BUILTIN
    ]


def _expected(session: RowMapping, check: RowMapping | None, failed: RowMapping | None) -> int | None:
    """Firecrawl's total shrinks as pages fail: those belong to the crawl all the same."""
    if session["completed_at"] is not None:
        return None
    if session["engine"] == Engine.BUILTIN:
        return session["found"] or None
    if check is None or not check["total"]:
        asked: int | None = session["urls_asked"]
        return asked
    return int(check["total"] + (failed["pages"] if failed else 0))


def _reconciliation(row: RowMapping | None) -> ReconciliationInfo | None:
    if row is None or row["state"] == ReconcileState.DUE:
        return None
    return ReconciliationInfo(**row, note=row["error"])


def _page(row: RowMapping) -> PageRow:
    stages = row["stages"] or {}
    total_ms = row["total_ms"]
    unaccounted_ms = None if total_ms is None else max(0.0, total_ms - sum(stages.values()))
    return PageRow(**{**row, "stages": stages, "unaccounted_ms": unaccounted_ms})
