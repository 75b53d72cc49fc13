from datetime import UTC, datetime, timedelta
from typing import Any

from crawlscope.cli.output.follow import QUIET_SECONDS, QuietCrawl, progress_words, render_progress
from crawlscope.core.vocabulary import CrawlStatus, VerdictName
from crawlscope.insights.progress import Pace, Progress
from crawlscope.insights.schemas import Eta, Verdict
from tests.support.metrics_examples import BEGAN, crawl_metrics, rendered

NOTHING_YET: dict[str, Any] = {
    "status": CrawlStatus.IN_PROGRESS,
    "found": 0,
    "total_pages": 0,
    "pages_indexed": 0,
    "pages_failed": 0,
}
AT_FIRECRAWL: dict[str, Any] = {
    "status": CrawlStatus.IN_PROGRESS,
    "engine": "firecrawl",
    "found": None,
    "fetched": None,
}


def soon(seconds: float) -> Eta:
    now = datetime.now(UTC) + timedelta(seconds=0.4)  # which rounding takes away again
    after = [now + timedelta(seconds=seconds * factor) for factor in (1, 0.5, 2)]
    return Eta(at=after[0], earliest=after[1], latest=after[2], pages_left=9)


def verdict(name: str) -> Verdict:
    reason = "workers are busy with other crawls"
    return Verdict(verdict=VerdictName(name), since=BEGAN, stage=None, reason=reason, awaits=None)


def test_progress_counts_what_the_crawler_has_found():
    running = crawl_metrics(status=CrawlStatus.IN_PROGRESS, found=100, pages_pending=5)
    assert Progress.of(running) == Progress(expected=100, received=65, indexed=59, failed=1, settled=60)


def test_what_a_crawl_found_but_never_received_is_not_waited_for():
    ended = crawl_metrics(found=100, pages_pending=0, pages_cancelled=2)
    assert Progress.of(ended).expected == 62


def test_a_crawl_of_another_crawler_expects_what_it_received():
    foreign = crawl_metrics(status=CrawlStatus.IN_PROGRESS, found=None, fetched=None, pages_pending=5)
    assert Progress.of(foreign).expected == 65


def test_the_pace_is_that_of_the_last_seconds():
    pace = Pace()
    for second in range(100):
        pace.note(second, second if second < 50 else 50 + 10 * (second - 50))
    assert pace.pages_per_second == 10


def test_the_pace_is_shown_after_enough_measurements():
    pace = Pace()
    pace.note(0, 0)
    assert pace.pages_per_second is None
    assert "– pages/s  ETA –" in progress_words(Progress(5, 1, 0, 0, 0), pace).plain


def test_the_live_lines_fit():
    pace = Pace()
    pace.note(0, 0)
    pace.note(10, 90)
    lines = rendered(render_progress(Progress(12_345, 9_876, 8_765, 12, 8_777, eta=soon(seconds=396)), pace))
    assert len(lines) == 3
    assert lines[1].endswith("ETA 6m 36s")
    assert lines[2] == "between 3m 18s and 13m 12s from now"
    assert max(map(len, lines)) <= 80


def test_the_awaited_event_is_shown_before_the_first_page():
    queued = crawl_metrics(**NOTHING_YET, verdict=verdict("starved"), awaits="its turn: the crawler is busy")
    words = progress_words(Progress.of(queued), Pace()).plain
    assert words.startswith("found 0  received 0")
    assert words.endswith("waiting for its turn: the crawler is busy")


def test_the_bar_is_measured_by_firecrawls_number_of_pages():
    running = crawl_metrics(**AT_FIRECRAWL, pages_expected=100, pages_pending=5)
    progress = Progress.of(running)
    assert (progress.expected, progress.received, progress.is_known) == (100, 65, True)
    pace = Pace()
    pace.note(0, 20)
    pace.note(10, 60)
    assert progress.left == 40
    assert "found 100  received 65" in progress_words(progress, pace).plain


def test_while_firecrawl_has_not_said_how_many_pages_there_are_no_time_is_promised():
    unknown = crawl_metrics(**AT_FIRECRAWL, pages_pending=5)
    progress, pace = Progress.of(unknown), Pace()
    pace.note(0, 20)
    pace.note(10, 60)
    words = progress_words(progress, pace).plain
    assert "found –  received 65" in words
    assert words.endswith("ETA –")


def test_that_all_is_received_and_the_end_is_awaited_is_no_matter_of_seconds():
    received = crawl_metrics(
        **AT_FIRECRAWL,
        pages_expected=60,
        verdict=verdict("waiting for Firecrawl"),
        awaits="Firecrawl to finish",
    )
    pace = Pace()
    pace.note(0, 20)
    pace.note(10, 60)
    words = progress_words(Progress.of(received), pace).plain
    assert words.endswith("ETA –  waiting for Firecrawl to finish")
    lines = rendered(render_progress(Progress.of(received), pace))
    assert lines[-1] == "waiting for Firecrawl to finish"


def test_further_pages_are_shown_by_the_numbers_alone():
    advancing = crawl_metrics(
        **AT_FIRECRAWL, pages_pending=5, verdict=verdict("advancing"), awaits="5 pages to be indexed"
    )
    assert Progress.of(advancing).awaits is None
    held_up = advancing.model_copy(update={"verdict": verdict("starved")})
    assert Progress.of(held_up).awaits == "5 pages to be indexed: workers are busy with other crawls"


def test_a_crawl_without_progress_is_noticed_once_with_the_known_reason():
    said: list[str] = []
    quiet = QuietCrawl(said.append)
    crawl = crawl_metrics(**AT_FIRECRAWL, verdict=verdict("stalled"))
    for at in (0, QUIET_SECONDS):
        quiet.note(at, Progress.of(crawl), crawl)
    assert said == []
    quiet.note(QUIET_SECONDS + 1, Progress.of(crawl), crawl)
    quiet.note(QUIET_SECONDS * 9, Progress.of(crawl), crawl)
    assert said == ["nothing has happened for 30 s: workers are busy with other crawls"]
