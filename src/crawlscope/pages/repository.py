"""The SQL of pages and their contents. Whatever changes a page locks its row first."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Row,
    Text,
    Uuid,
    any_,
    cast,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import arrays, hash_key
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import FINDINGS, FOUND_AT
from crawlscope.pages.causes import precision
from crawlscope.pages.delivered import Arrival, KnownPage
from crawlscope.sessions.repository import SessionChange, lock_sessions
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters

CONTENTS = models.table_of(models.PageContent)
PAGES = models.table_of(models.Page)

UNSETTLED = (PageState.QUEUED, PageState.INDEXING)
LOCK_ORDER = (PAGES.c.crawl_id.collate("C"), PAGES.c.source_url.collate("C"))
"""Transactions lock several pages in the order in which Python sorts their crawls and URLs."""
NOW = func.clock_timestamp()
THIS_TRANSACTION = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
QUEUE_WAIT_MS = func.greatest(0, func.extract("epoch", PAGES.c.started_at - PAGES.c.queued_at) * 1000)
_KEEP_MARKDOWN = text("""
    UPDATE webhook.page_contents AS content SET markdown = made.markdown
    FROM unnest(CAST(:page_ids AS bigint[]), CAST(:markdown AS text[])) AS made (page_id, markdown)
    WHERE content.page_id = made.page_id
""")
_OUTCOME_COLUMNS = (
    *("started_at", "settled_at", "settled_in", "queue_wait_ms", "total_ms", "chunks"),
    *("error_code", "error", "error_detail"),
)
"""A page that waits again has none of these."""
LOCK_SOURCES = text("""
    SELECT given.*, page.*,
        CASE WHEN page.id IS NULL THEN nextval(pg_get_serial_sequence('webhook.pages', 'id')) END AS new_id
    FROM unnest(CAST(:crawl_ids AS text[]), CAST(:source_keys AS uuid[])) AS given (crawl_id, source_key)
    LEFT JOIN LATERAL (
        SELECT id, state, revision, delivered, pulled, received_at, webhook_id, url, title, language,
            error_code, error, settled_at
        FROM webhook.pages
        WHERE pages.crawl_id = given.crawl_id AND pages.source_key = given.source_key
        FOR NO KEY UPDATE
    ) AS page ON true
""")
"""Locks one page after the other in the given order, each through the index: a join would read all pages
while the table's statistics are older than a crawl."""
_HASH_CONTENTS = text("""
    SELECT page_id, html <> '' AS is_html,
        sha256(convert_to(CASE WHEN html <> '' THEN html ELSE markdown END, 'UTF8')) AS hash
    FROM webhook.page_contents WHERE page_id = ANY (CAST(:page_ids AS bigint[]))
""")
_DELIVERED_COLUMNS = (
    *("id", "crawl_id", "source_key", "source_url", "url", "document_key", "state", "revision", "delivered"),
    *("pulled", "received_at", "webhook_id", "status_code", "title", "language", "job_id", "error_code"),
    *("error", "error_detail", "settled_at", "markdown", "html"),
)
_STORE_PAGES = text("""
    WITH given AS (
        SELECT * FROM unnest(
            CAST(:id AS bigint[]), CAST(:crawl_id AS text[]), CAST(:source_key AS uuid[]),
            CAST(:source_url AS text[]), CAST(:url AS text[]), CAST(:document_key AS uuid[]),
            CAST(:state AS text[]), CAST(:revision AS int[]), CAST(:delivered AS boolean[]),
            CAST(:pulled AS boolean[]), CAST(:received_at AS timestamptz[]), CAST(:webhook_id AS text[]),
            CAST(:status_code AS int[]), CAST(:title AS text[]), CAST(:language AS text[]),
            CAST(:job_id AS bigint[]), CAST(:error_code AS text[]), CAST(:error AS text[]),
            CAST(:error_detail AS text[]), CAST(:settled_at AS timestamptz[]), CAST(:markdown AS text[]),
            CAST(:html AS text[])
        ) AS given (
            id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
            received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
            settled_at, markdown, html
        )
    ), content AS (
        INSERT INTO webhook.page_contents (page_id, markdown, html)
        SELECT id, markdown, html FROM given WHERE delivered
        ON CONFLICT (page_id) DO UPDATE SET markdown = excluded.markdown, html = excluded.html
    )
    INSERT INTO webhook.pages AS page (
        id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
        received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
        queued_at, settled_at, settled_in
    )
    SELECT id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
        received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
        CASE WHEN delivered THEN clock_timestamp() END,
        CASE WHEN NOT delivered THEN coalesce(settled_at, clock_timestamp()) END,
        CASE WHEN NOT delivered THEN CAST(CAST(pg_current_xact_id() AS text) AS bigint) END
    FROM given
    ON CONFLICT (id) DO UPDATE SET
        url = excluded.url, document_key = excluded.document_key, state = excluded.state,
        revision = excluded.revision, delivered = excluded.delivered, pulled = excluded.pulled,
        received_at = excluded.received_at, webhook_id = excluded.webhook_id,
        status_code = excluded.status_code, title = excluded.title, language = excluded.language,
        job_id = coalesce(excluded.job_id, page.job_id), error_code = excluded.error_code,
        error = excluded.error, error_detail = excluded.error_detail,
        queued_at = coalesce(excluded.queued_at, page.queued_at), settled_at = excluded.settled_at,
        settled_in = excluded.settled_in,
        started_at = CASE WHEN NOT excluded.delivered THEN page.started_at END,
        queue_wait_ms = CASE WHEN NOT excluded.delivered THEN page.queue_wait_ms END,
        total_ms = CASE WHEN NOT excluded.delivered THEN page.total_ms END,
        chunks = CASE WHEN NOT excluded.delivered THEN page.chunks END,
        stages = CASE WHEN excluded.delivered THEN '{}' ELSE page.stages END
    WHERE page.crawl_id = excluded.crawl_id AND page.source_key = excluded.source_key
    RETURNING id, settled_at
""")
_REFRESH_LAST_SETTLED = text("""
    UPDATE webhook.crawl_sessions AS session SET last_settled_at = (
        SELECT max(page.settled_at) FROM webhook.pages AS page WHERE page.crawl_id = session.crawl_id
    )
    WHERE crawl_id = ANY (CAST(:crawl_ids AS text[]))
""")


Source = tuple[str, str]
"""A page by its crawl and source URL."""


async def lock_page(connection: AsyncConnection, page_id: int) -> Row[Any] | None:
    locked = await connection.execute(
        select(*PAGES.c).where(PAGES.c.id == page_id).with_for_update(key_share=True)
    )
    return locked.one_or_none()


async def lock_delivered_pages(
    connection: AsyncConnection, sources: Sequence[Source]
) -> dict[Source, KnownPage]:
    """Pages by crawl and source URL. Locks those that are stored; the others have a new id each, in order."""
    if not sources:
        return {}
    keys = {source: hash_key(source[1]) for source in sources}
    ordered = sorted(sources)  # as others lock them
    given = {
        "crawl_ids": [crawl_id for crawl_id, _ in ordered],
        "source_keys": [keys[source] for source in ordered],
    }
    rows = (await connection.execute(LOCK_SOURCES, given)).all()
    usable = [row.id for row in rows if row.delivered]
    contents = {}
    if usable:  # by a statement of its own: it reads what is there after the locks
        hashed = await connection.execute(_HASH_CONTENTS, {"page_ids": usable})
        contents = {row.page_id: row for row in hashed}
    stored = {
        (row.crawl_id, row.source_key): _known(row, contents.get(row.id))
        for row in rows
        if row.id is not None
    }
    new_ids = iter(sorted(row.new_id for row in rows if row.id is None))
    found = {source: stored.get((source[0], key)) for source, key in keys.items()}
    return {source: page or KnownPage(next(new_ids)) for source, page in found.items()}


def _known(row: Row[Any], content: Row[Any] | None) -> KnownPage:
    cause_precision = 0 if row.delivered else precision(row.error_code)
    return KnownPage(
        id=row.id,
        revision=row.revision,
        state=PageState(row.state),
        arrival=Arrival(row.delivered, cause_precision, not row.pulled, row.received_at, row.webhook_id),
        url=row.url,
        title=row.title,
        language=row.language,
        error_code=row.error_code,
        error=row.error,
        settled_at=row.settled_at,
        is_html=content is not None and content.is_html,
        content_hash=content.hash if content else None,
    )


async def store_delivered_pages(
    connection: AsyncConnection,
    changed: Mapping[Source, KnownPage],
    job_ids: Mapping[Source, int],
) -> dict[Source, datetime]:
    """Writes pages, by crawl and source URL, as their last delivery left them; returns when those without
    content settled. Locks new pages in the order in which others lock them."""
    if not changed:
        return {}
    rows = []
    for source, page in sorted(changed.items()):
        delivered = page.delivered
        assert delivered is not None
        rows.append(
            (
                *(page.id, source[0], hash_key(source[1]), source[1]),
                *(delivered.url, hash_key(delivered.url), page.state, page.revision),
                *(delivered.failure is None, not delivered.arrival.pushed, delivered.arrival.received_at),
                *(delivered.arrival.webhook_id, delivered.status_code, delivered.title, delivered.language),
                *(job_ids.get(source), page.error_code, page.error, delivered.error_detail, page.settled_at),
                *(delivered.markdown, delivered.html),
            )
        )
    stored = (await connection.execute(_STORE_PAGES, arrays(_DELIVERED_COLUMNS, rows))).all()
    if len(stored) < len(rows):
        raise RuntimeError("a new page got the id of another one: the sequence of webhook.pages is behind")
    source_of = {page.id: source for source, page in changed.items()}
    return {source_of[row.id]: row.settled_at for row in stored if row.settled_at}


async def lock_pages(
    connection: AsyncConnection, crawl_id: str, keys: Sequence[UUID] | None = None
) -> Sequence[Row[Any]]:
    """The pages of a crawl whose source or document has one of `keys`; without them all that failed."""
    if keys is None:
        chosen = PAGES.c.state == PageState.FAILED
    else:
        any_key = any_(cast(list(keys), ARRAY(Uuid)))
        chosen = or_(PAGES.c.source_key == any_key, PAGES.c.document_key == any_key)
    pages = select(*PAGES.c).where(PAGES.c.crawl_id == crawl_id, chosen)
    return (await connection.execute(pages.order_by(*LOCK_ORDER).with_for_update())).all()


async def lock_all_pages(connection: AsyncConnection, crawl_id: str) -> list[int | None]:
    """Locks the pages of a crawl, which no worker can settle then; returns their jobs."""
    pages = select(PAGES.c.job_id).where(PAGES.c.crawl_id == crawl_id).order_by(*LOCK_ORDER)
    return list(await connection.scalars(pages.with_for_update()))


async def known_pages(connection: AsyncConnection, crawl_id: str) -> Sequence[Any]:
    """Per page of a crawl `source_key`, `source_url`, `delivered`, `status_code`, `error_code` and, as
    `words`, why it failed.
    """
    pages = await connection.execute(
        select(
            *(PAGES.c.source_key, PAGES.c.source_url, PAGES.c.delivered, PAGES.c.status_code),
            *(PAGES.c.error_code, func.coalesce(PAGES.c.error_detail, PAGES.c.error).label("words")),
        ).where(PAGES.c.crawl_id == crawl_id)
    )
    return pages.all()


async def queue_page(
    connection: AsyncConnection, page_id: int, revision: int, alone: bool = False, **values: Any
) -> int:
    """Enqueues a job for the page and clears its last outcome. `values` are further columns."""
    payload = {"page_id": page_id, "revision": revision} | ({"alone": True} if alone else {})
    [job_id] = await enqueue(connection, INDEX_PAGE, [payload])
    await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            **values,
            state=PageState.QUEUED,
            revision=revision,
            job_id=job_id,
            queued_at=NOW,
            **dict.fromkeys(_OUTCOME_COLUMNS),
            stages={},
        )
    )
    return job_id


async def write_outcome(
    connection: AsyncConnection,
    page_id: int,
    state: PageState,
    error_code: str | None = None,
    error: str | None = None,
    at: datetime | None = None,
    **values: Any,
) -> datetime:
    """Settles the page, now or `at` another time; returns when. `values` are further columns."""
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            state=state,
            settled_at=at or NOW,
            settled_in=THIS_TRANSACTION,
            error_code=error_code,
            error=error,
            **values,
        )
        .returning(PAGES.c.settled_at)
    )
    settled_at: datetime = settled.scalar_one()
    return settled_at


async def fail_page(connection: AsyncConnection, page: Row[Any], error_code: str, error: str) -> None:
    """Settles a page that no worker has claimed as failed."""
    settled_at = await write_outcome(
        connection, page.id, PageState.FAILED, error_code, error, queue_wait_ms=QUEUE_WAIT_MS
    )
    change = SessionChange()
    change.move_page(PageState(page.state), PageState.FAILED, settled_at)
    await write_changes(connection, {page.crawl_id: change})
    meters.pages_settled(connection, {PageState.FAILED: 1})


async def refresh_last_settled(connection: AsyncConnection, crawl_ids: Collection[str]) -> None:
    """For crawls of which settled pages wait again."""
    await lock_sessions(connection, crawl_ids)  # by a statement before: pages are read as they are then
    await connection.execute(_REFRESH_LAST_SETTLED, {"crawl_ids": list(crawl_ids)})


async def keep_markdown(connection: AsyncConnection, markdown: Mapping[int, str]) -> None:
    """The Markdown of pages that were delivered as HTML, by their ids."""
    values = {"page_ids": list(markdown), "markdown": list(markdown.values())}
    await connection.execute(_KEEP_MARKDOWN, values)


async def newest_contents(connection: AsyncConnection, document_key: UUID, limit: int) -> Sequence[Any]:
    """`title`, `language` and `markdown` of a document's pages, the one found last first.

    Without pages that failed: no index has anything of those.
    """
    rows = await connection.execute(
        select(PAGES.c.title, PAGES.c.language, CONTENTS.c.markdown)
        .select_from(FINDINGS.join(CONTENTS, CONTENTS.c.page_id == PAGES.c.id))
        .where(
            PAGES.c.document_key == document_key,
            PAGES.c.delivered,
            PAGES.c.state.not_in([PageState.FAILED, PageState.CANCELLED]),
        )
        .order_by(FOUND_AT.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc())
        .limit(limit)
    )
    return rows.all()
