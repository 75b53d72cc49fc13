import pytest

from crawlscope.faces.terminal.follow import QUIET_SECONDS, _Quiet, progress_words, render_progress
from crawlscope.faces.terminal.pace import Pace, Progress
from crawlscope.vocabulary import CrawlStatus
from tests.faces.terminal.examples import crawl_metrics, rendered


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
    assert pace.seconds_left(Progress(700, 700, 540, 0, 540)) == 16


def test_nothing_is_said_of_the_pace_until_something_is_known():
    pace = Pace()
    pace.note(0, 0)
    assert pace.pages_per_second is None
    assert "– pages/s  ETA –" in progress_words(Progress(5, 1, 0, 0, 0), pace).plain


def test_no_time_is_promised_while_nothing_moves():
    pace = Pace()
    pace.note(0, 3)
    pace.note(5, 3)
    assert pace.seconds_left(Progress(5, 5, 3, 0, 3)) is None


def test_the_live_lines_fit():
    pace = Pace()
    pace.note(0, 0)
    pace.note(10, 90)
    lines = rendered(render_progress(Progress(12_345, 9_876, 8_765, 12, 8_777), pace))
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80


def test_before_the_first_page_there_is_only_the_crawler_to_wait_for():
    assert progress_words(Progress(0, 0, 0, 0, 0), Pace()).plain == "waiting for the crawler to start …"


@pytest.mark.parametrize(
    ("engine", "pending", "reason"),
    [
        ("builtin", 0, "does a worker run"),
        ("firecrawl", 5, "does a worker run"),
        ("firecrawl", 0, "does Firecrawl reach this service"),
    ],
)
def test_a_crawl_that_does_not_move_is_said_so_once_with_the_usual_reason(engine, pending, reason):
    said: list[str] = []
    quiet = _Quiet(said.append)
    crawl = crawl_metrics(
        status=CrawlStatus.IN_PROGRESS, engine=engine, found=None, fetched=None, pages_pending=pending
    )
    for at in (0, QUIET_SECONDS):
        quiet.note(at, Progress.of(crawl), crawl)
    assert said == []
    quiet.note(QUIET_SECONDS + 1, Progress.of(crawl), crawl)
    quiet.note(QUIET_SECONDS * 9, Progress.of(crawl), crawl)
    [words] = said
    assert reason in words
