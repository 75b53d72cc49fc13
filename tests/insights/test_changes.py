"""The differences between two crawls of a site, page by page, and in the text of one page."""

from datetime import timedelta

import pytest

from crawlscope.core.errors import NotFoundError
from crawlscope.core.vocabulary import ChangeKind, OperationType, PageState
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.pages.index_page import Outcome
from crawlscope.timing import TimingContext
from tests.support.producing import NOON, A, attempt, deliver, document, end, queued

MONDAY, TUESDAY = "crawl-monday", "crawl-tuesday"


async def crawl(database: Database, crawl_id: str, **pages: str | int) -> None:
    """Each page by its name: its text, or the status with which it failed. Equal texts have equal hashes."""
    for name, brought in pages.items():
        url = f"{A}{name}"
        if isinstance(brought, int):
            await deliver(database, crawl_id, "crawl.page", [document(url, status_code=brought)])
            continue
        await deliver(database, crawl_id, "crawl.page", [{**document(url), "markdown": brought}])
        for job in await queued(database, crawl_id):
            outcome = Outcome(PageState.INDEXED, 1, content_hash=f"hash of {brought}")
            await end(database, *await attempt(database, job), outcome)
    await deliver(database, crawl_id, "crawl.completed")


async def test_each_page_that_differs_is_listed_by_kind(database: Database, insights: Insights):
    await crawl(database, MONDAY, same="x", new_text="old", gone="x", broken="x", fixed=500, bad=500)
    await crawl(
        database, TUESDAY, same="x", new_text="new", fresh="x", broken=404, fixed="x", bad=500, dead=404
    )

    found = await insights.page_changes(TUESDAY, MONDAY)

    assert [(change.kind.value, change.url.removeprefix(A)) for change in found.changes] == [
        ("added", "fresh"),
        ("removed", "gone"),
        ("changed", "new_text"),
        ("newly_failed", "broken"),
        ("newly_failed", "dead"),
        ("recovered", "fixed"),
    ]
    assert (found.total, found.note) == (6, None)
    assert found.counts[ChangeKind.NEWLY_FAILED] == 2
    assert found.counts[ChangeKind.SLOWER] == 0
    broken = found.changes[3]
    assert broken.now is not None
    assert broken.before is not None
    assert (broken.now.state, broken.now.error_code) == (PageState.FAILED, "http_404")
    assert broken.before.state is PageState.INDEXED
    assert (found.changes[0].before, found.changes[1].now) == (None, None)


async def test_kinds_are_filtered_and_paged_with_the_total(database: Database, insights: Insights):
    await crawl(database, MONDAY, a="x")
    await crawl(database, TUESDAY, a="y", **{f"b{number}": "x" for number in range(5)})

    found = await insights.page_changes(TUESDAY, MONDAY, ChangeKind.ADDED, limit=2, offset=3)

    assert [change.url for change in found.changes] == [f"{A}b3", f"{A}b4"]
    assert found.total == 5
    assert found.counts[ChangeKind.CHANGED] == 1


async def test_a_page_is_slower_if_it_took_much_longer(database: Database, insights: Insights):
    for crawl_id, took_ms in ((MONDAY, 1_000.0), (TUESDAY, 3_000.0)):
        for name, factor in (("heavy", 1.0), ("light", 0.01)):
            await deliver(database, crawl_id, "crawl.page", [document(f"{A}{name}")])
            [job] = await queued(database, crawl_id)
            claim, _ = await attempt(database, job)
            took = TimingContext.past(
                *(OperationType.WORKER, "index_document"),
                began_at=NOON,
                ended_at=NOON + timedelta(milliseconds=took_ms * factor),
                crawl_id=crawl_id,
                document_url=claim.source_url,
            )
            await end(database, claim, [took], Outcome(PageState.INDEXED, 1, content_hash="same"))

    found = await insights.page_changes(TUESDAY, MONDAY)
    faster = await insights.page_changes(MONDAY, TUESDAY)

    assert [(change.kind, change.url) for change in found.changes] == [(ChangeKind.SLOWER, f"{A}heavy")]
    assert faster.total == 0


async def test_pages_that_wait_and_pages_that_may_still_come_are_no_changes(
    database: Database, insights: Insights
):
    await crawl(database, MONDAY, a="x", b="x")
    await deliver(database, TUESDAY, "crawl.page", [document(f"{A}a")])

    running = await insights.page_changes(TUESDAY, MONDAY)
    await deliver(database, TUESDAY, "crawl.completed")
    ended = await insights.page_changes(TUESDAY, MONDAY)

    assert (running.total, running.note) == (
        0,
        "the crawl still runs: which pages are removed is known at its end",
    )
    assert [(change.kind, change.url) for change in ended.changes] == [(ChangeKind.REMOVED, f"{A}b")]


async def test_texts_of_pages_without_a_hash_are_compared(database: Database, insights: Insights):
    """As those that settled before hashes were recorded."""
    for crawl_id, text in ((MONDAY, "old"), (TUESDAY, "new")):
        for name, brought in (("same", "x"), ("other", text)):
            await deliver(database, crawl_id, "crawl.page", [{**document(f"{A}{name}"), "markdown": brought}])
        for job in await queued(database, crawl_id):
            await end(database, *await attempt(database, job), Outcome(PageState.INDEXED, 1))

    found = await insights.page_changes(TUESDAY, MONDAY)

    assert [(change.kind, change.url) for change in found.changes] == [(ChangeKind.CHANGED, f"{A}other")]


async def test_one_page_has_the_diff_of_its_text(database: Database, insights: Insights):
    await crawl(database, MONDAY, a="# Queues\n\nA queue holds what waits.\n\nIt is fair.")
    await crawl(database, TUESDAY, a="# Queues\n\nA queue holds all that waits.\n\nIt is fair.\n\nAnd fast.")

    found = await insights.changes_of_page(TUESDAY, MONDAY, f"{A}a")

    assert [change.kind for change in found.changes] == [ChangeKind.CHANGED]
    assert found.diff is not None
    assert (found.diff.added, found.diff.removed, found.diff.is_cut, found.note) == (2, 1, False, None)
    [hunk] = found.diff.hunks
    assert [(line.kind, line.text) for line in hunk.lines] == [
        ("same", "# Queues"),
        ("removed", "A queue holds what waits."),
        ("added", "A queue holds all that waits."),
        ("same", "It is fair."),
        ("added", "And fast."),
    ]
    removed, added = hunk.lines[1], hunk.lines[2]
    assert [removed.text[mark.begin : mark.end] for mark in removed.marks] == ["what"]
    assert [added.text[mark.begin : mark.end].strip() for mark in added.marks] == ["all that"]


async def test_a_text_that_is_not_kept_is_said_to_be_missing(database: Database, insights: Insights):
    await crawl(database, MONDAY, a=404)
    await crawl(database, TUESDAY, a="text", b="x")

    failed = await insights.changes_of_page(TUESDAY, MONDAY, f"{A}a")
    new = await insights.changes_of_page(TUESDAY, MONDAY, f"{A}b")

    assert failed.diff is new.diff is None
    assert failed.note == f"no text is kept of the page in crawl {MONDAY}: none came, or it was deleted"
    assert new.note == f"crawl {MONDAY} has no such page"
    assert [change.kind for change in failed.changes] == [ChangeKind.RECOVERED]


async def test_what_is_not_known_is_not_found(database: Database, insights: Insights):
    await crawl(database, MONDAY, a="x")
    with pytest.raises(NotFoundError, match="Crawl not found: nobody"):
        await insights.page_changes(MONDAY, "nobody")
    with pytest.raises(NotFoundError, match=f"Page not found in crawl {MONDAY} nor in {MONDAY}: {A}z"):
        await insights.changes_of_page(MONDAY, MONDAY, f"{A}z")
