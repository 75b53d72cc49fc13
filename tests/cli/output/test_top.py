from collections import defaultdict
from datetime import timedelta

from crawlscope.cli.output.top import BAR_WIDTH, pages_bar, render_top
from crawlscope.core.vocabulary import CrawlStatus, VerdictName
from crawlscope.insights.progress import Pace, Progress
from crawlscope.insights.schemas import CrawlListResponse, Eta, Verdict
from tests.support.metrics_examples import BEGAN, crawl_metrics, rendered

NOW = BEGAN + timedelta(minutes=5)
TOP = """\
crawl                                pages                pages/s    ETA  began
0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11 █████xxx▒▒··········     2.0 30.0 s 5m ago
https://docs.example.com/            60 of 160, 20 failed
3 more are not shown"""


def running(**changes: object):
    usual = {"status": CrawlStatus.IN_PROGRESS, "completed_at": None, "pages_expected": 160}
    counts = {"total_pages": 60, "pages_indexed": 40, "pages_failed": 20, "pages_pending": 20}
    return crawl_metrics(**(usual | counts | changes))


def test_running_crawls_are_shown_with_their_pages_pace_and_time_left():
    eta = Eta(at=NOW + timedelta(seconds=30), earliest=NOW, latest=NOW, pages_left=100)
    crawl = running(eta=eta)
    paces: defaultdict[str, Pace] = defaultdict(Pace)
    paces[crawl.crawl_id].note(0.0, 40)
    paces[crawl.crawl_id].note(10.0, 60)

    lines = rendered(render_top(CrawlListResponse(crawls=[crawl], total=4), paces, NOW))

    assert "\n".join(lines) == TOP


def test_a_crawl_that_waits_says_for_what():
    verdict = Verdict(
        verdict=VerdictName.STALLED, since=BEGAN, stage="queue", reason="no worker", awaits="pages"
    )
    crawl = running(verdict=verdict, awaits="20 pages to be indexed")

    lines = rendered(render_top(CrawlListResponse(crawls=[crawl], total=1), defaultdict(Pace), NOW))

    assert any("0b7f4b1e waits for 20 pages to be indexed: no worker" in line for line in lines)


def test_a_bar_is_as_wide_for_any_numbers():
    for changes in ({}, {"pages_expected": None}, {"pages_expected": 1}, {"pages_pending": 10**6}):
        crawl = running(**changes)
        assert len(pages_bar(crawl, Progress.of(crawl)).plain) == BAR_WIDTH


def test_no_crawl_is_said_so():
    lines = rendered(render_top(CrawlListResponse(crawls=[], total=0), defaultdict(Pace), NOW))
    assert lines == ["No crawl runs. Start one: crawlscope crawl https://example.com"]
