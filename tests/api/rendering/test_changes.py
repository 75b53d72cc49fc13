from datetime import UTC, datetime

from crawlscope.api.rendering.changes import render_changes, render_page_changes
from crawlscope.core.vocabulary import ChangeKind, PageState
from crawlscope.insights.schemas import PageChange, PageChangesResponse, PageVersion
from crawlscope.insights.text_diff import diff
from tests.support.metrics_examples import rendered

LISTED = """\
pages
added         7  https://docs.example.com/page-0
                 https://docs.example.com/page-1
                 and 5 more
newly failed  1  https://docs.example.com/broken  http_404
slower        1  https://docs.example.com/heavy  1.0 s → 3.0 s
the crawl still runs
"""
PAGE = """\
https://docs.example.com/queues  changed
A  indexed, Queues, 3.0 s
B  indexed, Queues, 1.0 s

1 lines added, 1 removed, from B to A
@@ line 1 of B, 1 of A
  # Queues
- A queue holds what waits.
+ A queue holds all that waits.
"""


def version(state: PageState = PageState.INDEXED, **changes: object) -> PageVersion:
    usual = {"status_code": 200, "error_code": None, "error": None, "title": "Queues", "chunks": 3}
    times = {"settled_at": datetime(2026, 1, 31, tzinfo=UTC), "total_ms": 1_000.0}
    return PageVersion.model_validate({**usual, **times, "state": state, **changes})


def change(name: str, kind: ChangeKind, now: PageVersion | None, before: PageVersion | None) -> PageChange:
    return PageChange(url=f"https://docs.example.com/{name}", kind=kind, now=now, before=before)


def answer(*changes: PageChange, **further: object) -> PageChangesResponse:
    counts = {kind: sum(each.kind is kind for each in changes) for kind in ChangeKind}
    usual = {"crawl_id": "a", "against": "b", "changes": changes, "total": len(changes), "counts": counts}
    return PageChangesResponse.model_validate({**usual, **further})


def test_the_changes_of_a_crawl_are_listed_by_kind():
    failed = version(PageState.FAILED, error_code="http_404")
    found = answer(
        *(change(f"page-{number}", ChangeKind.ADDED, version(), None) for number in range(2)),
        change("broken", ChangeKind.NEWLY_FAILED, failed, version()),
        change("heavy", ChangeKind.SLOWER, version(total_ms=3_000.0), version()),
        note="the crawl still runs",
    )
    found.counts[ChangeKind.ADDED] = 7

    assert "\n".join(rendered(render_changes(found))) + "\n" == LISTED


def test_equal_crawls_need_one_line():
    assert rendered(render_changes(answer())) == ["No page differs."]


def test_a_page_is_shown_with_what_differs():
    text = diff("# Queues\nA queue holds what waits.", "# Queues\nA queue holds all that waits.")
    changed = change("queues", ChangeKind.CHANGED, version(total_ms=3_000.0), version())
    found = answer(changed, diff=text)

    assert "\n".join(rendered(render_page_changes(found, changed.url))) + "\n" == PAGE


def test_the_text_of_a_page_does_not_steer_the_terminal():
    found = answer(diff=diff("a \x1b[31mred\x07 line", "another \x1b[32mline"))

    shown = "\n".join(rendered(render_page_changes(found, "https://docs.example.com/\x1b[2J")))

    assert "\x1b" not in shown
    assert "\x07" not in shown
