from crawlscope.api.rendering.comparison import render_comparison
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.insights.compare import compare
from tests.support.metrics_examples import crawl_metrics, operation, rendered

COMPARED = """\
A  0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11  completed
   https://docs.example.com/
B  5c1d5a52-6f0e-4a46-8b43-6d5f0f0c7a10  in progress
   https://docs.example.com/

                       A   B  A ÷ B
pages                 60  30   2.00
indexed               59  30   1.97
unchanged              2   0      –
failed                 1   0      –
crawled in        12.0 s   –      –
searchable after  30.0 s   –      –
pages/s              2.0   –      –

mean per page          A       B  A ÷ B             p95       A       B  A ÷ B
queue wait         9.0 s   9.0 s   1.00      │           15.0 s  15.0 s   1.00
chunking           10 ms  4.0 ms   2.50      │███         20 ms  8.0 ms   2.50
embedding         800 ms   1.6 s   0.50    ██│            1.6 s   3.2 s   0.50
BM25              2.0 ms       –      –                  4.0 ms       –      –
index write        20 ms   20 ms   1.00      │            40 ms   40 ms   1.00
worker time       850 ms   1.7 s   0.50    ██│            1.7 s   3.4 s   0.50
"""


def test_two_crawls():
    other = crawl_metrics(
        crawl_id="5c1d5a52-6f0e-4a46-8b43-6d5f0f0c7a10",
        status=CrawlStatus.IN_PROGRESS,
        total_pages=30,
        pages_indexed=30,
        pages_failed=0,
        pages_unchanged=0,
        duration_ms=None,
        time_to_searchable_ms=None,
        operations={
            "worker": operation(30, 1_700),
            "chunking": operation(30, 4),
            "embedding": operation(30, 1_600),
            "qdrant": operation(30, 20),
        },
    )
    lines = rendered(render_comparison(compare(crawl_metrics(), other)))
    assert "\n".join(lines) + "\n" == COMPARED


def test_nothing_is_wider_than_the_terminal_or_steers_it():
    long = crawl_metrics(
        crawl_url="https://docs.example.com/" + "very-long/" * 40 + "\x1b[31mred",
        duration_ms=9e7,
        time_to_searchable_ms=9.9e7,
        operations={"worker": operation(59, 9e6)},
    )
    lines = rendered(
        render_comparison(compare(long, crawl_metrics(operations={"worker": operation(59, 0.01)})))
    )
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
