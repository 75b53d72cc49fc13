"""The results of commands that change a crawl, in words."""

from typing import Any

from crawlscope.changes.schemas import CrawlWatched, PageNotWatched
from crawlscope.cli.output.changed import (
    MAX_SHOWN,
    reconciled_text,
    recounted_text,
    replayed_text,
    watched_text,
)
from crawlscope.core.vocabulary import CrawlStatus, ReconcileState
from crawlscope.crawls.schemas import CountDifference, CrawlReconciled, CrawlRecounted
from crawlscope.webhooks.schemas import DeliveriesReplayed


def shown(refused: int = 0, **numbers: int) -> str:
    pages = [PageNotWatched(url=f"https://a.example/{n}\x1b[2J", reason="too long") for n in range(refused)]
    given = {"created": 0, "known": 0, "left": 0, **numbers}
    return watched_text(CrawlWatched(crawl_id="c", refused=pages, **given))


def test_the_numbers_are_one_line():
    assert shown(created=1, known=1_200) == "1 watch created, 1,200 known before."
    assert (
        shown(created=2, left=7) == "2 watches created, 0 known before. 7 pages left: run the command again."
    )


def test_pages_that_are_not_watched_are_named_up_to_a_number():
    assert shown(2).splitlines()[1:] == [
        "https://a.example/0[2J: too long",
        "https://a.example/1[2J: too long",
    ]
    lines = shown(MAX_SHOWN + 5).splitlines()
    assert len(lines) == MAX_SHOWN + 2
    assert lines[-1].startswith("and 5 more")


def reconciled(**changes: Any) -> str:
    nothing: dict[str, Any] = {
        "crawl_id": "c",
        "status": CrawlStatus.COMPLETED,
        "added": 0,
        "failed": 0,
        "cancelled": 0,
        "state": ReconcileState.SETTLED,
        "note": None,
        "adopted": False,
    }
    return reconciled_text(CrawlReconciled(**nothing | changes))


def test_a_reconciliation_names_what_it_changed():
    assert reconciled() == "completed: nothing was missing."
    assert reconciled(added=1, failed=2, cancelled=3) == (
        "completed: 1 page fetched, 2 failed at Firecrawl, 3 dropped by the cancellation."
    )
    running = {"status": CrawlStatus.IN_PROGRESS, "state": ReconcileState.RUNNING}
    assert reconciled(**running) == "in_progress: nothing was missing. The crawl still runs."
    assert (
        reconciled(note="Firecrawl does not answer") == "completed: nothing new. Firecrawl does not answer."
    )
    assert reconciled(adopted=True, added=6).startswith("The crawl was not known here and is recorded now. ")


def test_a_recount_names_each_difference():
    assert recounted_text(CrawlRecounted(crawl_id="c", changed={})) == "All counters are consistent."
    changed = {
        "total_pages": CountDifference(was=4, counted=5),
        "success": CountDifference(was=None, counted=True),
    }
    words = recounted_text(CrawlRecounted(crawl_id="c", changed=changed))
    assert words == "total_pages: was 4, is 5\nsuccess: was None, is True"


def test_a_replay_names_what_it_changed():
    nothing = {"deliveries": 1, "changed": 0, "pages_queued": 0, "unreadable": 0, "newly_known": 0}
    assert replayed_text(DeliveriesReplayed(**nothing, crawls=[])) == "1 delivery reprocessed, 0 changed."
    some = {"deliveries": 9, "changed": 2, "pages_queued": 3, "unreadable": 1, "newly_known": 1}
    assert replayed_text(DeliveriesReplayed(**some, crawls=["c"])) == (
        "9 deliveries reprocessed, 2 changed in 1 crawl: 3 pages queued; "
        "1 event of a type that was not known before; 1 could not be read."
    )
