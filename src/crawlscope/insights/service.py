"""The read service behind the API, the CLI and MCP: crawls, their pages, and the time each step took."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import NotFoundError
from crawlscope.core.in_thread import in_thread
from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import (
    ChangeKind,
    CrawlStatus,
    NotificationState,
    PageState,
)
from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.embedders.models import unread_notice
from crawlscope.indexing.generations import repository as generations
from crawlscope.insights import change_queries, course, queries
from crawlscope.insights.answer_cache import AnswerCache
from crawlscope.insights.changes import STILL_RUNNING, compared_texts, page_change
from crawlscope.insights.compare import compare
from crawlscope.insights.diagnosis import diagnosis
from crawlscope.insights.durations import durations_between, durations_of
from crawlscope.insights.export import exported_page, exported_pages
from crawlscope.insights.news import News, Position, SettledPages
from crawlscope.insights.queries import PageSort, Rows, row_of, rows_of
from crawlscope.insights.schemas import (
    AttemptListResponse,
    AttemptRow,
    ChangeListResponse,
    ChangeRow,
    CrawlComparison,
    CrawlListResponse,
    CrawlMetricsResponse,
    CrawlTotals,
    DeliveryListResponse,
    DeliveryRow,
    DiagnosisResponse,
    ExportedPage,
    IndexReport,
    NotificationListResponse,
    NotificationRow,
    OperationListResponse,
    OperationRow,
    PageChangesResponse,
    PageListResponse,
    PageMetric,
    PageRow,
    RefusedDeliveries,
    ReindexResponse,
    RequestListResponse,
    RequestRow,
    RequestTotals,
    StatsResponse,
    SummaryResponse,
    TimelineResponse,
)
from crawlscope.insights.states import SiteExpectations, baseline_of, outages_at, states_of
from crawlscope.insights.timeline import Span, timeline
from crawlscope.insights.verdict import PartOutage
from crawlscope.pages.delivered import markdown_of

DEFAULT_LIMIT = 50
DEFAULT_BUCKETS = 60
SETTLED_AT_ONCE = 200
"""The largest number of pages of a crawl in one piece of news."""


class Insights:
    """Each answer comes from one snapshot, so that its numbers agree with each other while a crawl runs.

    Methods that take a crawl's id raise `NotFoundError` for an unknown crawl.
    """

    def __init__(
        self,
        database: Database,
        quiet_seconds: float = 300.0,
        *,
        asks_firecrawl: bool = False,
        expectations: SiteExpectations | None = None,
    ) -> None:
        """After `quiet_seconds` without events a crawl counts as silent. `asks_firecrawl` says whether crawls
        are compared with a Firecrawl."""
        self._quiet_seconds = quiet_seconds
        self._asks_firecrawl = asks_firecrawl
        self._expectations = expectations or {}
        snapshots = database.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._snapshots = Database(snapshots)
        self._cache = AnswerCache()

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
            total, sessions = await _slice(connection, matching, limit, offset, queries.SESSIONS)
            return CrawlListResponse(crawls=await self._measured(connection, sessions), total=total)

    async def crawl(self, crawl_id: str, include_per_page: bool = False) -> CrawlMetricsResponse:
        async with self._known(crawl_id) as connection:
            session = await row_of(connection, queries.crawl(crawl_id))
            [crawl] = await self._measured(connection, [session])
            crawl.baseline = await baseline_of(connection, session, self._expectations)
            if include_per_page:
                operations = await rows_of(connection, queries.page_metrics(crawl_id))
                crawl.per_page_metrics = [PageMetric(**row) for row in operations]
            return crawl

    async def news(self, after: Mapping[str, Position], also: Collection[str] = (), newest: int = 0) -> News:
        """The pages of crawls that settled after the positions. The states of these crawls and of those that
        are given `also`, of the `newest`, and of as many of the newest in progress.

        Costs the same few queries for any number of crawls.
        """
        async with self._snapshots.transaction() as connection:
            sessions = await rows_of(connection, queries.watched_crawls({*after, *also}, newest))
            states = await states_of(connection, sessions, self._quiet_seconds, self._asks_firecrawl)
            horizon = Position(await connection.scalar(queries.oldest_transaction()) or 0)
            return News(
                {state.crawl_id: state for state in states},
                await _settled(connection, after, horizon),
                horizon,
            )

    async def settled_pages(
        self, crawl_id: str, after: Position, until: Position | None = None
    ) -> SettledPages:
        """The next pages of the crawl that settled after `after`, up to `until`."""
        async with self._snapshots.transaction() as connection:
            horizon = Position(await connection.scalar(queries.oldest_transaction()) or 0)
            end = min(horizon, until) if until else horizon
            return (await _settled(connection, {crawl_id: after}, end))[crawl_id]

    async def compare(self, crawl_id: str, against: str) -> CrawlComparison:
        async with self._known(crawl_id, against) as connection:
            sessions = [await row_of(connection, queries.crawl(each)) for each in (crawl_id, against)]
            return compare(*await self._measured(connection, sessions))

    async def timeline(self, crawl_id: str, buckets: int = DEFAULT_BUCKETS) -> TimelineResponse:
        """The crawl's time in so many parts. The number of queries does not depend on it."""
        async with self._known(crawl_id) as connection:
            session = await row_of(connection, queries.crawl(crawl_id))

            async def make() -> TimelineResponse:
                span = Span.of(session, datetime.now(UTC), buckets)
                return timeline(session, span, await course.timeline_rows(connection, session, span))

            return await self._cache.get(session, ("timeline", buckets), make)

    async def diagnosis(self, crawl_id: str) -> DiagnosisResponse:
        """The bottleneck of the crawl, and the change that helps most."""
        async with self._known(crawl_id) as connection:
            session = await row_of(connection, queries.crawl(crawl_id))

            async def make() -> DiagnosisResponse:
                return diagnosis(crawl_id, await course.evidence(connection, session))

            return await self._cache.get(session, "diagnosis", make)

    @asynccontextmanager
    async def exported(self, crawl_id: str) -> AsyncIterator[tuple[int, AsyncIterator[list[ExportedPage]]]]:
        """The number of the crawl's pages, and batches of all of them: from one snapshot, which lasts as long
        as the block, and with it a connection.
        """
        async with self._known(crawl_id) as connection:
            total = await connection.scalar(queries.count_of(queries.pages(crawl_id)))
            async with aclosing(exported_pages(connection, crawl_id)) as batches:
                yield total or 0, batches

    async def page_changes(
        self,
        crawl_id: str,
        against: str,
        kind: ChangeKind | None = None,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> PageChangesResponse:
        """The pages that differ from those of the crawl `against`. Pages that wait are left out."""
        kinds = [kind] if kind else list(ChangeKind)
        async with self._known(crawl_id, against) as connection:
            given = await _compared(connection, crawl_id, against)
            counted = (await connection.execute(change_queries.COUNTS, given)).all()
            selected = {**given, "kinds": kinds, "limit": limit, "offset": offset}
            rows = (await connection.execute(change_queries.CHANGES, selected)).mappings().all()
        counts = dict.fromkeys(ChangeKind, 0) | {ChangeKind(row.kind): row.count for row in counted}
        return PageChangesResponse(
            crawl_id=crawl_id,
            against=against,
            changes=[page_change(row) for row in rows],
            total=sum(counts[each] for each in kinds),
            counts=counts,
            note=None if given["is_ended"] else STILL_RUNNING,
        )

    async def changes_of_page(self, crawl_id: str, against: str, url: str) -> PageChangesResponse:
        """The change of the page with this source URL, and the differences in its text."""
        async with self._known(crawl_id, against) as connection:
            given = await _compared(connection, crawl_id, against)
            given["source_key"] = hash_key(storable(url))
            rows = (await connection.execute(change_queries.CHANGES_OF_PAGE, given)).mappings().all()
            kept = (await connection.execute(change_queries.CONTENTS_OF_PAGE, given)).mappings().all()
        if not kept:
            raise NotFoundError(f"Page not found in crawl {crawl_id} nor in {against}: {url}")
        contents = {row["crawl_id"]: markdown_of(row) for row in kept}
        diff, note = await in_thread(compared_texts, contents, against, crawl_id)
        changes = [page_change(row) for row in rows]
        kinds = Counter(change.kind for change in changes)
        return PageChangesResponse(
            crawl_id=crawl_id,
            against=against,
            changes=changes,
            total=len(changes),
            counts={each: kinds[each] for each in ChangeKind},
            note=note,
            diff=diff,
        )

    async def pages(
        self,
        crawl_id: str,
        state: PageState | None = None,
        sort: PageSort = PageSort.RECENT,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> PageListResponse:
        """`recent` sorts by the last event of a page. `slowest` lists pages without a measurement last."""
        matching = queries.pages(crawl_id, state, sort)
        async with self._known(crawl_id) as connection:
            total, rows = await _slice(connection, matching, limit, offset)
            return PageListResponse(pages=[page_row(row) for row in rows], total=total)

    async def page(self, crawl_id: str, url: str) -> ExportedPage:
        """The page with this source URL, with its text. Raises `NotFoundError`."""
        async with self._known(crawl_id) as connection:
            page = await exported_page(connection, crawl_id, url)
        if page is None:
            raise NotFoundError(f"Page not found in crawl {crawl_id}: {url}")
        return page

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
            total, rows = await _slice(connection, matching, limit, offset, queries.OPERATIONS)
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
            total, rows = await _slice(connection, matching, limit, offset, queries.REQUESTS)
            return RequestListResponse(requests=[RequestRow(**row) for row in rows], total=total)

    async def notifications(
        self, state: NotificationState | None = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> NotificationListResponse:
        """Newest first."""
        async with self._snapshots.transaction() as connection:
            total, rows = await _slice(connection, queries.notifications(state), limit, offset)
            return NotificationListResponse(
                notifications=[NotificationRow(**row) for row in rows], total=total
            )

    async def changes(
        self, url: str | None = None, limit: int = DEFAULT_LIMIT, offset: int = 0
    ) -> ChangeListResponse:
        """Newest first. `url` is any part of the page's URL."""
        async with self._snapshots.transaction() as connection:
            total, rows = await _slice(connection, queries.changes(url), limit, offset)
            return ChangeListResponse(changes=[ChangeRow(**row) for row in rows], total=total)

    async def summary(self, hours: int = 24) -> SummaryResponse:
        """Totals of the last `hours`: crawls that started, operations and requests that began."""
        until = datetime.now(UTC)
        since = until - timedelta(hours=hours)
        async with self._snapshots.transaction() as connection:
            crawls = await row_of(connection, queries.crawl_totals(since, until))
            durations = await durations_between(connection, since, until)
            requests = await row_of(connection, queries.request_totals(since, until))
            refused = await rows_of(connection, queries.refused_deliveries(since, until))
        return SummaryResponse(
            hours=hours,
            since=since,
            until=until,
            crawls=CrawlTotals(**crawls),
            operations=durations.operations,
            requests=RequestTotals(**requests),
            refused_deliveries=[RefusedDeliveries(**row) for row in refused],
        )

    async def stats(self) -> StatsResponse:
        """Counts of the database. The index's own counts are left out."""
        async with self._snapshots.transaction() as connection:
            stats = StatsResponse(**await row_of(connection, queries.stats()))
            if serving := (await generations.live(connection)).serving:
                stats.embedder, stats.index_problem = serving.recipe.identity.description, serving.problem
                stats.languages = await documents.count_languages(connection, serving.id)
                stats.language_notice = unread_notice(serving.recipe.identity.model, stats.languages)
            return stats

    async def outages(self) -> list[PartOutage]:
        """The parts that workers cannot use at the moment."""
        async with self._snapshots.transaction() as connection:
            return await outages_at(connection, datetime.now(UTC))

    async def indexes(self) -> ReindexResponse:
        """The index that serves, and the progress of the one that will replace it."""
        async with self._snapshots.transaction() as connection:
            live = await generations.live(connection)
            reports = [
                each
                and IndexReport(
                    name=each.name,
                    embedder=each.recipe.identity.description,
                    chunk_tokens=each.recipe.chunk_tokens,
                    problem=each.problem,
                    created_at=each.created_at,
                    switched_at=each.switched_at,
                    **vars(await documents.count(connection, each.id)),
                )
                for each in (live.serving, live.replacement)
            ]
            return ReindexResponse(serving=reports[0], filling=reports[1])

    async def _measured(
        self, connection: AsyncConnection, sessions: Sequence[RowMapping]
    ) -> list[CrawlMetricsResponse]:
        """Needs a few queries for all of the sessions together."""
        crawl_ids = [session["crawl_id"] for session in sessions]
        if not crawl_ids:
            return []
        durations = await durations_of(connection, crawl_ids)
        states = await states_of(connection, sessions, self._quiet_seconds, self._asks_firecrawl)
        return [
            CrawlMetricsResponse(
                **vars(state),
                per_page_metrics=None,
                extra_metadata=session["extra_metadata"],
                **vars(durations[state.crawl_id]),
            )
            for session, state in zip(sessions, states, strict=True)
        ]

    @asynccontextmanager
    async def _known(self, *crawl_ids: str) -> AsyncIterator[AsyncConnection]:
        async with self._snapshots.transaction() as connection:
            for crawl_id in crawl_ids:
                if await connection.scalar(queries.crawl_exists(crawl_id)) is None:
                    raise NotFoundError(f"Crawl not found: {crawl_id}")
            yield connection


async def _compared(connection: AsyncConnection, crawl_id: str, against: str) -> dict[str, Any]:
    """The parameters of the statements on two crawls."""
    session = await row_of(connection, queries.crawl(crawl_id))
    is_ended = session["completed_at"] is not None
    return {"crawl_id": storable(crawl_id), "against": storable(against), "is_ended": is_ended}


async def _settled(
    connection: AsyncConnection, after: Mapping[str, Position], end: Position
) -> dict[str, SettledPages]:
    """`end` is at most the horizon."""
    if not after:
        return {}
    places = {crawl_id: (position.transaction, position.page_id) for crawl_id, position in after.items()}
    found: dict[str, list[RowMapping]] = defaultdict(list)
    for row in await rows_of(connection, queries.settled_pages(places, SETTLED_AT_ONCE)):
        found[row["crawl_id"]].append(row)
    settled = {}
    for crawl_id, position in after.items():
        rows, reached = found[crawl_id][:SETTLED_AT_ONCE], max(position, end)
        within = [row for row in rows if Position(row["settled_in"], row["page_id"]) <= end]
        is_all = len(within) == len(found[crawl_id])
        if len(within) == SETTLED_AT_ONCE:
            reached = Position(within[-1]["settled_in"], within[-1]["page_id"])
        settled[crawl_id] = SettledPages([page_row(row) for row in within], reached, is_all)
    return settled


async def _slice(
    connection: AsyncConnection, matching: Rows, limit: int, offset: int, whole: Table | None = None
) -> tuple[int, Sequence[RowMapping]]:
    """`whole` is the table without the filters of `matching`, if its number of rows is known."""
    total = await connection.scalar(queries.count_of(matching, whole))
    return total or 0, await rows_of(connection, queries.slice_of(matching, limit, offset))


def page_row(row: RowMapping) -> PageRow:
    stages = row["stages"] or {}
    total_ms = row["total_ms"]
    unaccounted_ms = None if total_ms is None else max(0.0, total_ms - sum(stages.values()))
    return PageRow(**{**row, "stages": stages, "unaccounted_ms": unaccounted_ms})
