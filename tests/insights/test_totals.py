from datetime import UTC, datetime, timedelta

from crawlscope.database.engine import Database
from crawlscope.indexing.documents import KnownDocument, save_documents
from crawlscope.indexing.embedders.port import EmbedderIdentity
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.insights.service import Insights
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import MeasurementBuffer, RequestRecord
from tests.support.producing import (
    NOON,
    A,
    B,
    C,
    deliver,
    deliver_pages,
    fail_pages,
    index_pages,
)

RECIPE = Recipe(EmbedderIdentity("local", "a model", "its checksum", 384), chunk_tokens=200)


class TestOperations:
    async def test_narrowed_by_what_they_belong_to(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A, B)
        await deliver_pages(database, "crawl-2", C)
        await index_pages(database, "crawl-1")
        await fail_pages(database, "crawl-2", "bad_text", "cannot embed")

        everything = await insights.operations()
        failed = await insights.operations(success=False)
        embedding = await insights.operations(crawl_id="crawl-1", operation_type="embedding")
        of_a = await insights.operations(document_url=A)
        of_examples = await insights.operations(url="b.exam")
        named = await insights.operations(operation_name="chunk_text")
        job = (await insights.operations(document_url=B)).operations[0].job_id

        assert everything.total == 3 + 2 * 5 + 3
        timestamps = [each.timestamp for each in everything.operations]
        assert timestamps == sorted(timestamps, reverse=True)
        assert {(each.operation_type, each.error_message) for each in failed.operations} == {
            ("worker", "cannot embed"),
            ("embedding", "cannot embed"),
        }
        assert embedding.total == 2
        assert (of_a.total, of_examples.total, named.total) == (5, 5, 3)
        assert (await insights.operations(job_id=job)).total == 5
        assert (await insights.operations(crawl_id="nul\x00")).total == 0

    async def test_narrowed_by_time(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)
        now = datetime.now(UTC)

        assert (await insights.operations(since=now - timedelta(minutes=1))).total == 1
        assert (await insights.operations(since=now + timedelta(minutes=1))).total == 0
        assert (await insights.operations(until=now - timedelta(minutes=1))).total == 0


class TestRequestsAndTotals:
    async def test_requests(self, database: Database, insights: Insights):
        await record_requests(database)

        everything = await insights.requests()
        searches = await insights.requests(url="/search", method="post")
        failures = await insights.requests(status_code=503)

        assert everything.total == 3
        assert [each.path for each in everything.requests] == ["/c", "/api/search", "/api/stats"]
        assert [each.path for each in searches.requests] == ["/api/search"]
        assert [(each.status_code, each.duration_ms) for each in failures.requests] == [(503, 30.0)]
        assert (await insights.requests(until=datetime.now(UTC) - timedelta(hours=1))).total == 0

    async def test_summary(self, database: Database, insights: Insights):
        await record_requests(database)
        await deliver_pages(database, "crawl-1", A, B)
        await index_pages(database, "crawl-1")
        await deliver(database, "crawl-1", "crawl.completed")
        await deliver_pages(database, "crawl-2", C)
        await deliver(database, "long-ago", "crawl.started", at=NOON)

        summary = await insights.summary(hours=2)

        assert summary.until - summary.since == timedelta(hours=2)
        crawls = summary.crawls
        assert (crawls.total, crawls.completed, crawls.in_progress) == (2, 1, 1)
        assert (crawls.total_pages, crawls.pages_indexed, crawls.pages_pending) == (2, 2, 1)
        assert summary.operations["embedding"].count == 2
        assert summary.operations["webhook"].count == 5
        requests = summary.requests
        assert (requests.count, requests.client_errors, requests.server_errors) == (3, 1, 1)
        assert (requests.p50_ms, requests.mean_ms, requests.max_ms) == (20, 20, 30)

    async def test_summary_of_nothing(self, insights: Insights):
        summary = await insights.summary()

        assert (summary.hours, summary.crawls.total, summary.operations) == (24, 0, {})
        assert (summary.requests.count, summary.requests.p50_ms) == (0, None)

    async def test_stats(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A, B)
        async with database.transaction() as connection:
            serving = await generations.ensure_serving(connection, RECIPE)
            for url, chunks in ((A, 2), (B, 5)):
                known = KnownDocument("hash", "fingerprint", chunks, None)
                await save_documents(connection, serving.id, {url: known})

        stats = await insights.stats()

        assert (stats.crawls, stats.pages, stats.documents, stats.chunks) == (1, 2, 2, 7)
        assert stats.pages_kept == 2
        assert stats.database_bytes > 1_000_000
        assert (stats.index_chunks, stats.index_bytes) == (None, None)


async def test_a_standalone_measurement_of_an_unknown_crawl_makes_its_session_visible(
    database: Database, insights: Insights
):
    buffer = MeasurementBuffer(database)
    with scope(collect=buffer.add_operation), TimingContext("embedding", "embed_batch", crawl_id="new"):
        pass
    await buffer.flush()

    crawl = await insights.crawl("new")

    assert crawl.crawl_url == "unknown"
    assert crawl.operations["embedding"].count == 1


async def record_requests(database: Database) -> None:
    buffer = MeasurementBuffer(database)
    now = datetime.now(UTC)
    answered = (("GET", "/api/stats", 200), ("POST", "/api/search", 422), ("GET", "/c", 503))
    for number, (method, path, status) in enumerate(answered, start=1):
        at = now - timedelta(minutes=10 - number)
        buffer.add_request(
            RequestRecord(at, method, path, status, 10.0 * number, f"request-{number}", None, None)
        )
    await buffer.flush()
