"""Pages as they are delivered: the better delivery wins, and a page with content is queued. With the SQL.

A page counts once, whatever is delivered or retried: its row is locked first, its crawl's session last.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.values import arrays, hash_key
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import GONE_CODES, GONE_STATUSES
from crawlscope.pages.causes import precision
from crawlscope.pages.delivered import Arrival, DeliveredPage, KnownPage
from crawlscope.pages.repository import refresh_last_settled
from crawlscope.sessions.changes import SessionChange
from crawlscope.sessions.fold import Fact, Lifecycle
from crawlscope.timing import TimingContext
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters

Source = tuple[str, str]
"""A page by its crawl and source URL."""
Changed = tuple[KnownPage, int | None]
"""A page with the id of the delivery that changed it."""
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
    SELECT page_id, html <> '' AS is_html, CASE
        WHEN html = '' AND markdown = '' AND hash IS NOT NULL THEN hash
        ELSE sha256(convert_to(CASE WHEN html <> '' THEN html ELSE markdown END, 'UTF8'))
    END AS hash
    FROM webhook.page_contents WHERE page_id = ANY (CAST(:page_ids AS bigint[]))
""")
_DELIVERED_COLUMNS = (
    *("id", "crawl_id", "source_key", "source_url", "url", "document_key", "state", "revision", "delivered"),
    *("pulled", "received_at", "webhook_id", "status_code", "title", "language", "job_id", "error_code"),
    *("error", "error_detail", "settled_at", "html", "markdown", "delivery_id", "begins", "ends"),
    *("characters", "hash"),
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
            CAST(:html AS text[]), CAST(:delivery_id AS bigint[]), CAST(:begins AS int[]),
            CAST(:ends AS int[]), CAST(:characters AS int[]), CAST(:hash AS bytea[])
        ) AS given (
            id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
            received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
            settled_at, markdown, html, delivery_id, begins, ends, characters, hash
        )
    ), content AS (
        INSERT INTO webhook.page_contents (
            page_id, markdown, html, delivery_id, begins, ends, characters, hash
        )
        SELECT id, markdown, html, delivery_id, begins, ends, characters, hash FROM given WHERE delivered
        ON CONFLICT (page_id) DO UPDATE SET
            markdown = excluded.markdown, html = excluded.html, delivery_id = excluded.delivery_id,
            begins = excluded.begins, ends = excluded.ends, characters = excluded.characters,
            hash = excluded.hash
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


@dataclass(frozen=True, eq=False)
class PageDelivery:
    """The pages and facts of a delivery, or of an answer of the crawler's API."""

    crawl_id: str
    """Its session exists."""
    pages: Sequence[DeliveredPage]
    id: int | None = None
    """The id of the delivery."""
    facts: Sequence[Fact] = ()
    """Those that the caller has stored."""
    without_url: int = 0
    """Number of failed pages without a URL."""
    timing: TimingContext | None = None
    """Measures the delivery until its effects are written."""


@dataclass
class Effect:
    """The effect of one delivery on its pages and their crawl."""

    job_ids: list[int] = field(default_factory=list)
    settled: list[PageState] = field(default_factory=list)
    """The states of pages without content that changed."""
    unsettled: bool = False
    """Whether a page was settled before: now it waits again, or settled at another time."""
    reworded: bool = False
    """Whether the cause of a failure changed."""
    before: Lifecycle | None = None
    """The state of the crawl without the facts of the delivery."""

    @property
    def touched(self) -> bool:
        return bool(self.job_ids or self.settled)

    def note(self, before: PageState | None, failure: PageState | None) -> None:
        """A page that changed; `failure` is its state if it has no content."""
        self.unsettled = self.unsettled or (before is not None and before.settled)
        if failure and failure is before:
            self.reworded = True
        elif failure:
            self.settled.append(failure)


async def receive_pages(connection: AsyncConnection, deliveries: Sequence[PageDelivery]) -> list[Effect]:
    """Receives deliveries as if one came after the other: stores their pages and queues those with content,
    unless another delivery of a page is better, and changes the sessions of their crawls.

    Returns the effect of each delivery. After this, the transaction locks nothing but sessions.
    """
    sources = [(each.crawl_id, page.source_url) for each in deliveries for page in each.pages]
    known = await _lock_pages(connection, list(dict.fromkeys(sources)))
    changes, changed = defaultdict[str, SessionChange](SessionChange), dict[Source, Changed]()
    effects = [Effect() for _ in deliveries]
    jobs: list[tuple[dict[str, Any], Source, Effect]] = []
    for delivery, effect in zip(deliveries, effects, strict=True):
        changes[delivery.crawl_id].failures_without_url += delivery.without_url
        for page in delivery.pages:
            source = delivery.crawl_id, page.source_url
            before, after = known[source], known[source].after(page)
            if after is before:
                continue
            known[source], changed[source] = after, (after, delivery.id)
            changes[delivery.crawl_id].moved[before.state, after.state] += 1
            effect.note(before.state, page.failure)
            if not page.failure:
                jobs.append(({"page_id": after.id, "revision": after.revision}, source, effect))
            elif page.status_code in GONE_STATUSES or page.error_code in GONE_CODES:
                jobs.append(({"page_id": after.id, "gone": True}, source, effect))
    queued = {}
    job_ids = await enqueue(connection, INDEX_PAGE, [payload for payload, _, _ in jobs])
    for job_id, (payload, source, effect) in zip(job_ids, jobs, strict=True):
        if "revision" in payload:
            effect.job_ids.append(job_id)
            queued[source] = job_id
    for (crawl_id, _), at in (await _store_pages(connection, changed, queued)).items():
        changes[crawl_id].settled_at.append(at)
    await _change_crawls(connection, deliveries, effects, changes)
    return effects


async def _change_crawls(
    connection: AsyncConnection,
    deliveries: Sequence[PageDelivery],
    effects: Sequence[Effect],
    changes: Mapping[str, SessionChange],
) -> None:
    measured = [each.timing for each in deliveries if each.timing]
    for timing in measured:
        timing.stop()
    facts = [(each.crawl_id, each.facts) for each in deliveries if each.facts]
    before = iter(await write_changes(connection, changes, measured, facts=facts))
    noted = list(zip(deliveries, effects, strict=True))
    if unsettled := {delivery.crawl_id for delivery, effect in noted if effect.unsettled}:
        await refresh_last_settled(connection, unsettled)  # which are locked by now, in order with the others
    for delivery, effect in noted:
        effect.before = next(before) if delivery.facts else None
    meters.pages_settled(connection, Counter(state for effect in effects for state in effect.settled))


async def _lock_pages(connection: AsyncConnection, sources: Sequence[Source]) -> dict[Source, KnownPage]:
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
    if usable:  # in a statement of its own, which reads the state after the locks
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


async def _store_pages(
    connection: AsyncConnection,
    changed: Mapping[Source, Changed],
    job_ids: Mapping[Source, int],
) -> dict[Source, datetime]:
    """Writes pages as their last delivery left them; returns when those without content settled. Locks new
    pages in the order in which others lock them."""
    if not changed:
        return {}
    rows = []
    for source, (page, delivery_id) in sorted(changed.items(), key=lambda each: each[0]):
        delivered = page.delivered
        assert delivered is not None
        text: Sequence[Any] = delivered.markdown, *[None] * 5
        if delivery_id and delivered.text_at:  # it stays in the body
            length, hashed = len(delivered.markdown), sha256(delivered.markdown.encode()).digest()
            text = "", delivery_id, *delivered.text_at, length, hashed
        rows.append(
            (
                *(page.id, source[0], hash_key(source[1]), source[1]),
                *(delivered.url, hash_key(delivered.url), page.state, page.revision),
                *(delivered.failure is None, not delivered.arrival.pushed, delivered.arrival.received_at),
                *(delivered.arrival.webhook_id, delivered.status_code, delivered.title, delivered.language),
                *(job_ids.get(source), page.error_code, page.error, delivered.error_detail, page.settled_at),
                *(delivered.html, *text),
            )
        )
    stored = (await connection.execute(_STORE_PAGES, arrays(_DELIVERED_COLUMNS, rows))).all()
    if len(stored) < len(rows):
        raise RuntimeError("a new page got the id of another one: the sequence of webhook.pages is behind")
    source_of = {page.id: source for source, (page, _) in changed.items()}
    return {source_of[row.id]: row.settled_at for row in stored if row.settled_at}
