import pytest

from crawlscope.core.errors import NotFoundError
from crawlscope.database.engine import Database
from crawlscope.insights.compare import compare
from crawlscope.insights.schemas import QueueWait
from crawlscope.insights.service import Insights
from tests.support.metrics_examples import crawl_metrics, operation
from tests.support.producing import A, B, C, deliver, deliver_pages, index_pages

STAGES = ["chunking", "embedding", "bm25", "qdrant", "worker"]


def test_a_ratio_says_how_much_more_the_first_took():
    slow = crawl_metrics(duration_ms=24_000.0, operations={"embedding": operation(59, 800)})
    quick = crawl_metrics(duration_ms=12_000.0, operations={"embedding": operation(59, 200)})
    found = compare(slow, quick)
    assert found.numbers.duration_ms.ratio == 2
    assert found.stages["embedding"].mean_ms.model_dump() == {"a": 800, "b": 200, "ratio": 4}
    assert found.stages["embedding"].count.ratio == 1
    assert found.queue_wait.mean_ms.ratio == 1
    assert found.queue_wait.p95_ms.ratio == 1


def test_nothing_is_divided_by_nothing():
    whole = crawl_metrics(pages_failed=3)
    running = crawl_metrics(
        duration_ms=None, time_to_searchable_ms=None, pages_failed=0, queue_wait=QueueWait(), operations={}
    )
    found = compare(whole, running)
    assert found.numbers.pages_failed.model_dump() == {"a": 3, "b": 0, "ratio": None}
    assert found.numbers.duration_ms.model_dump() == {"a": 12_000, "b": None, "ratio": None}
    assert found.numbers.pages_per_second.b is None
    assert found.queue_wait.max_ms.ratio is None
    assert found.stages["chunking"].mean_ms.model_dump() == {"a": 10, "b": None, "ratio": None}
    assert compare(running, whole).stages["chunking"].mean_ms.ratio is None


def test_nothing_of_something_is_nothing():
    found = compare(crawl_metrics(pages_failed=0), crawl_metrics(pages_failed=3))
    assert found.numbers.pages_failed.ratio == 0


def test_the_pace_is_pages_over_the_time_until_they_can_be_found():
    found = compare(crawl_metrics(), crawl_metrics(time_to_searchable_ms=60_000.0))
    assert (found.numbers.pages_per_second.a, found.numbers.pages_per_second.ratio) == (2.0, 2.0)
    at_once = compare(crawl_metrics(time_to_searchable_ms=0.0), crawl_metrics())
    assert at_once.numbers.pages_per_second.a is None
    nothing = compare(crawl_metrics(pages_indexed=0, pages_failed=60), crawl_metrics())
    assert nothing.numbers.pages_per_second.a is None


def test_unknown_stages_of_one_crawl_come_last():
    other = crawl_metrics(operations={"zebra": operation(1, 1), "bm25": operation(1, 1)})
    assert list(compare(crawl_metrics(), other).stages) == [*STAGES, "zebra"]


async def test_both_crawls_are_read_as_they_are(database: Database, insights: Insights):
    await deliver_pages(database, "crawl-1", A, B)
    await deliver_pages(database, "crawl-2", C)
    await index_pages(database, "crawl-1")
    await index_pages(database, "crawl-2")
    await deliver(database, "crawl-1", "crawl.completed")

    found = await insights.compare("crawl-1", "crawl-2")
    alone = {name: await insights.crawl(name) for name in ("crawl-1", "crawl-2")}

    assert (found.a.crawl_id, found.b.crawl_id) == ("crawl-1", "crawl-2")
    assert found.numbers.total_pages.model_dump() == {"a": 2, "b": 1, "ratio": 2}
    assert list(found.stages) == [*STAGES, "webhook"]
    for stage, compared in found.stages.items():
        assert compared.total_ms.a == alone["crawl-1"].operations[stage].total_ms
        assert compared.p95_ms.b == alone["crawl-2"].operations[stage].p95_ms
    same = await insights.compare("crawl-1", "crawl-1")
    assert {compared.mean_ms.ratio for compared in same.stages.values()} == {1}


@pytest.mark.parametrize("pair", [("crawl-1", "nobody"), ("nobody", "crawl-1")])
async def test_either_may_be_unknown(database: Database, insights: Insights, pair: tuple[str, str]):
    await deliver(database, "crawl-1", "crawl.started")
    with pytest.raises(NotFoundError, match="Crawl not found: nobody"):
        await insights.compare(*pair)
