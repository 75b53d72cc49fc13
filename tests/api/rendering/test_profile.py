from datetime import timedelta
from typing import Any

import pytest

from crawlscope.api.client import CrawlReport
from crawlscope.api.rendering.profile import group_failures, render_profile, stage_lines
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.insights.schemas import (
    Baseline,
    MetExpectation,
    PageListResponse,
    QueueWait,
    ReconciliationInfo,
    Verdict,
)
from tests.support.metrics_examples import (
    BEGAN,
    crawl_metrics,
    crawl_report,
    diagnosis,
    failed_row,
    operation,
    page_list,
    page_row,
    rendered,
)

COMPLETED = """\
Crawl 0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11  completed
https://docs.example.com/

Pages       60: 59 indexed (2 unchanged, 1 empty), 1 failed
Crawled     in 12.0 s
Searchable  18.0 s later: 30.0 s after the start, 2.0 pages/s

Where the time went
stage         total    share                mean/page     p50     p95
queue wait        –        –                    9.0 s   8.0 s  15.0 s
chunking     590 ms    1.2 %                    10 ms  9.0 ms   20 ms
embedding    47.2 s   94.1 %  ███████████      800 ms  720 ms   1.6 s
BM25         118 ms    0.2 %                   2.0 ms  1.8 ms  4.0 ms
index write   1.2 s    2.4 %                    20 ms   18 ms   40 ms
unaccounted   1.1 s    2.1 %                    18 ms       –       –
worker time  50.1 s  100.0 %  ████████████     850 ms  765 ms   1.7 s

Slowest pages
  took  chunks  page
999 ms       1  https://docs.example.com/page-1
998 ms       2  https://docs.example.com/page-2

Failed pages
pages  error     reason and examples
    1  http_404  the page answered with HTTP status 404
                 https://docs.example.com/page-9
"""

FAILED = """\
Crawl 0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11  failed
https://docs.example.com/

Pages       0: 0 indexed, 2 failures without a URL
Crawled     in 12.0 s
Searchable  nothing of it
Error       it could not be crawled: connection refused
"""


def report(
    slowest: PageListResponse | None = None, failed: PageListResponse | None = None, **changes: Any
) -> CrawlReport:
    return crawl_report(crawl_metrics(**changes), slowest, failed)


BOUND = """\
Bound by    embedder: Pages waited or were indexed for 28.0 s, and 94% of the
            workers' time was embedding.
To change   Use a faster embedder. It would save about 13.2 s.
Idle        1.4 s waiting for the crawler; busy for 28.5 s of 30.0 s
"""


def shown(of: CrawlReport) -> str:
    return "\n".join(rendered(render_profile(of))).rstrip("\n") + "\n"


def test_a_completed_crawl():
    failed = page_list(failed_row(9, "http_404", "the page answered with HTTP status 404"))
    assert shown(report(page_list(page_row(1), page_row(2), total=60), failed)) == COMPLETED


def test_a_crawl_that_failed_at_its_first_page():
    failed = report(
        status=CrawlStatus.FAILED,
        success=False,
        total_pages=0,
        pages_indexed=0,
        pages_failed=0,
        pages_unchanged=0,
        pages_empty=0,
        failures_without_url=2,
        operations={},
        queue_wait=QueueWait(),
        error_message="it could not be crawled:\nconnection refused",
    )
    assert shown(failed) == FAILED


def test_a_running_crawl_says_what_is_pending():
    running = report(
        status=CrawlStatus.IN_PROGRESS,
        success=None,
        duration_ms=None,
        pages_pending=1,
        time_to_searchable_ms=None,
    )
    lines = rendered(render_profile(running))
    assert "Crawled     still running" in lines
    assert "Searchable  not all of it yet: 1 page pending" in lines


@pytest.mark.parametrize(
    ("seconds_after_the_end", "words"),
    [(18, "18.0 s later: "), (-18, "18.0 s before that: "), (0.01, "at once: "), (-0.01, "at once: ")],
)
def test_what_came_first_the_end_or_the_last_page_is_said(seconds_after_the_end, words):
    end = BEGAN + timedelta(seconds=33.9)
    crawl = report(
        completed_at=end,
        duration_ms=33_900.0,
        searchable_at=end + timedelta(seconds=seconds_after_the_end),
        time_to_searchable_ms=33_900.0 + seconds_after_the_end * 1_000,
    )
    lines = rendered(render_profile(crawl))
    assert "Crawled     in 33.9 s" in lines
    assert any(line.startswith(f"Searchable  {words}") for line in lines)


def test_a_crawl_that_firecrawl_completed_without_any_page_is_shown_as_failed():
    nothing = report(pages_indexed=0, pages_failed=3, total_pages=3, pages_unchanged=0, pages_empty=0)
    assert shown(nothing).splitlines()[0].endswith("  failed")


def test_the_stages_and_the_unaccounted_rest_make_the_worker_time():
    [_, *stages, whole] = stage_lines(report())
    assert sum(stage.total_ms or 0 for stage in stages) == whole.total_ms


def test_the_time_of_attempts_that_failed_counts_in_each_stage():
    operations = {
        "worker": operation(10, 100, failed=2, failed_ms=300),
        "chunking": operation(10, 20),
        "embedding": operation(10, 60, failed=2, failed_ms=100),
    }
    totals = {line.name: line.total_ms for line in stage_lines(report(operations=operations))}
    assert (totals["embedding"], totals["unaccounted"], totals["worker time"]) == (580, 320, 1_100)


def test_waits_for_the_embedder_are_a_stage_where_there_were_any():
    operations = crawl_metrics().operations | {"embedding_wait": operation(2, 100)}
    lines = stage_lines(report(operations=operations))
    names = [line.name for line in lines]
    assert names[1:4] == ["chunking", "embedding wait", "embedding"]
    [_, *stages, whole] = lines
    assert sum(stage.total_ms or 0 for stage in stages) == whole.total_ms


def test_the_rest_and_the_wait_have_their_percentiles():
    wait = QueueWait(mean_ms=200, p50_ms=150, p95_ms=400)
    lines = stage_lines(report(queue_wait=wait, unaccounted=operation(59, 20)))
    named = {line.name: line for line in lines}
    assert (named["unaccounted"].p50_ms, named["unaccounted"].p95_ms) == (18, 40)
    assert (named["queue wait"].mean_ms, named["queue wait"].p95_ms) == (200, 400)


def test_failures_are_grouped_with_their_most_frequent_reason():
    pages = [failed_row(n, "scrape_timeout", "timed out") for n in range(1, 6)]
    pages += [failed_row(6, "scrape_timeout", "no answer"), failed_row(7, None, None)]
    timeouts, unknown = group_failures(pages)
    assert (timeouts.code, timeouts.pages, timeouts.reason) == ("scrape_timeout", 6, "timed out")
    assert len(timeouts.urls) == 3
    assert (unknown.code, unknown.pages, unknown.reason) == ("unknown", 1, "")


def test_nothing_is_wider_than_the_terminal_or_steers_it():
    url = "https://docs.example.com/" + "very-long/" * 40 + "\x1b[31mred\x07"
    reason = "an error that does not end " * 30
    wide = report(
        page_list(page_row(1, url=url)),
        page_list(failed_row(2, "e" * 20, reason).model_copy(update={"url": url})),
        crawl_url=url,
        time_to_searchable_ms=9.9e7,
        total_pages=1_234_567,
        pages_indexed=1_234_566,
    )
    lines = rendered(render_profile(wide))
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    assert "\x07" not in "".join(lines)


def test_what_bounds_the_crawl_is_said_with_the_change_and_its_saving():
    assert BOUND in shown(crawl_report(crawl_metrics(), found=diagnosis()))


def test_an_open_crawl_says_what_it_is_doing():
    verdict = {
        "verdict": "stalled",
        "since": BEGAN,
        "stage": "embedding",
        "reason": "workers wait for the embedder",
    }
    compared = {
        "state": "failing",
        "checked_at": None,
        "checks": 1,
        "next_check_at": BEGAN,
        "added": 2,
        "note": "no answer",
    }
    text = shown(report(verdict=Verdict(**verdict), reconciliation=ReconciliationInfo(**compared)))
    assert "Now         stalled: workers wait for the embedder\n" in text
    assert "Compared    with what Firecrawl says, failing, 2 pages fetched: no answer\n" in text


def test_what_is_not_as_usual_or_as_expected_is_said() -> None:
    found = Baseline(
        runs=8,
        numbers={},
        regressions=["the number of pages is 60; usual is 73 to 89 (median of 8 crawls: 81)"],
        expectations=[
            MetExpectation(expectation="pages >= 70", met=False, value=60, bound=70),
            MetExpectation(expectation="pages >= 10", met=True, value=60, bound=10),
        ],
    )
    lines = [
        " ".join(line.split())
        for line in rendered(render_profile(crawl_report(crawl_metrics(baseline=found))), width=120)
    ]
    assert "Unusual the number of pages is 60; usual is 73 to 89 (median of 8 crawls: 81)" in lines
    assert "Not met pages >= 70: 60, expected 70" in lines
    assert not any("pages >= 10" in line for line in lines)
