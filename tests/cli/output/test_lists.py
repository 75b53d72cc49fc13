from datetime import timedelta

import pytest

from crawlscope.api.rendering.profile import render_profile
from crawlscope.cli.output.crawls import render_crawls
from crawlscope.cli.output.results import render_results
from crawlscope.core.vocabulary import CrawlStatus, VerdictName
from crawlscope.insights.schemas import CrawlListResponse, Verdict
from crawlscope.search.schemas import Highlight, SearchResponse, SearchResult
from tests.support.metrics_examples import BEGAN, crawl_metrics, crawl_report, rendered

CRAWLS = """\
crawl                                status      indexed failed   took started
0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11 completed        59      1 30.0 s  2h ago
https://docs.example.com/
0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11 in progress      59      1      –  2h ago
https://docs.examp…erything/there/is
3 older ones are not shown"""

RESULTS = """\
 1. Locks                                                                   0.93
    https://docs.example.com/locks
    A lock is released by the thread that holds it.

 2. https://docs.example.com/other                                          0.50
    https://docs.example.com/other
    Something else.

2 pages of 17 (hybrid search, 12 ms)"""


def result(title: str, path: str, text: str, score: float) -> SearchResult:
    return SearchResult(
        url=f"https://docs.example.com/{path}",
        title=title,
        text=text,
        score=score,
        crawl_id=None,
        chunk_index=0,
        crawl_ids=[],
        domain="docs.example.com",
        language="en",
        passages=[],
        highlights=[Highlight(text=text.replace("**", ""), chunk_index=0, matches=[])],
    )


@pytest.mark.parametrize("name", [VerdictName.COMPARING, VerdictName.INCOMPLETE])
def test_an_unchecked_end_is_shown_as_unchecked(name):
    verdict = Verdict(verdict=name, since=BEGAN, stage=None, reason="because")
    crawl = crawl_metrics(sealed=False, verdict=verdict)
    [_, first, second] = rendered(render_crawls(CrawlListResponse(crawls=[crawl], total=1), BEGAN))
    assert "completed" in first
    assert second.split()[-1] == name.split()[0]
    assert rendered(render_profile(crawl_report(crawl)))[0].endswith(f"completed, {name}")


def test_crawls_fit_on_the_terminal():
    running = crawl_metrics(
        status=CrawlStatus.IN_PROGRESS,
        time_to_searchable_ms=None,
        crawl_url="https://docs.example.com/reference/of/everything/there/is",
    )
    listed = CrawlListResponse(crawls=[crawl_metrics(), running], total=5)
    assert "\n".join(rendered(render_crawls(listed, BEGAN + timedelta(hours=2)))) == CRAWLS


def test_no_crawls_says_how_to_start_one():
    [line] = rendered(render_crawls(CrawlListResponse(crawls=[], total=0), BEGAN))
    assert "crawlscope crawl" in line


def test_results_with_their_passages():
    response = SearchResponse(
        results=[
            result("Locks", "locks", "A **lock** is released by the thread that holds it.", 0.93),
            result("", "other", "Something else.", 0.5),
        ],
        total=17,
        mode="hybrid",
        took_ms=12.3,
    )
    assert "\n".join(rendered(render_results(response, 80))) == RESULTS


def test_markup_of_a_page_stays_text():
    response = SearchResponse(
        results=[result("[bold]Title[/bold]", "a", "[red]text[/red]", 1)], total=1, mode="keyword", took_ms=1
    )
    lines = rendered(render_results(response, 80))
    assert any("[bold]Title[/bold]" in line for line in lines)
    assert any("[red]text[/red]" in line for line in lines)


def test_nothing_found():
    response = SearchResponse(results=[], total=0, mode="keyword", took_ms=0.5)
    assert rendered(render_results(response, 80)) == ["Nothing found (keyword search, 0.5 ms)"]
