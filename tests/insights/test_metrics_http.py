"""The recorder as a client sees it: the real routes over a real database and a real index."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI

from crawlscope.api.http import errors, metrics
from crawlscope.api.keys.registry import Keys
from crawlscope.core.errors import IndexUnavailable
from crawlscope.database.engine import Database
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.port import IndexedDocument, SparseVector
from crawlscope.insights.service import Insights
from tests.support.producing import (
    NOON,
    A,
    B,
    C,
    deliver,
    deliver_pages,
    document,
    fail_pages,
    index_pages,
)

SECRET = "a secret of this test"
CRAWL_FIELDS = {
    *("crawl_id", "crawl_url", "status", "success", "started_at", "completed_at", "duration_ms"),
    *("e2e_duration_ms", "total_pages", "pages_indexed", "pages_failed", "aggregate_timing"),
    *("per_page_metrics", "error_message", "extra_metadata", "initiated_at", "pages_pending"),
    *("pages_unchanged", "searchable_at", "time_to_searchable_ms", "operations", "queue_wait"),
}
PAGE_FIELDS = {
    *("url", "state", "attempts", "status_code", "error_code", "error", "queued_at", "settled_at"),
    *("queue_wait_ms", "total_ms", "stages", "chunks"),
}


class ServiceWithoutIndex(SimpleNamespace):
    """The parts of a service whose index is still being opened."""

    @property
    def host(self) -> Any:
        return self

    def require_index(self) -> Any:
        raise IndexUnavailable("search is not ready: the index is being opened")


class ServiceWithIndex(SimpleNamespace):
    @property
    def host(self) -> Any:
        return self

    def require_index(self) -> Any:
        return SimpleNamespace(index=self.index, embedder=SimpleNamespace(notice=None))


def service(insights: Insights | None) -> FastAPI:
    app = FastAPI()
    app.include_router(metrics.router)
    errors.install(app)
    app.state.parts = ServiceWithoutIndex(secret=SECRET, insights=insights)
    app.state.keys = Keys(Database.open("postgresql://nobody@127.0.0.1:1/nowhere"))
    return app


def client_of(app: FastAPI, secret: str = SECRET) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app),
        base_url="http://service",
        headers={"X-API-Secret": secret},
    )


@pytest.fixture
def app(insights: Insights) -> FastAPI:
    return service(insights)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def found(client: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_crawl_is_answered_in_the_documented_format(database: Database, client: httpx2.AsyncClient):
    await deliver_pages(database, "crawl-1", A, B, metadata={"initiated_at": "2025-01-31T12:00:00Z"})
    await index_pages(database, "crawl-1")
    await deliver(database, "crawl-1", "crawl.completed")

    crawl = await found(client, "/api/metrics/crawls/crawl-1")
    detailed = await found(client, "/api/metrics/crawls/crawl-1", include_per_page=True)

    assert set(crawl) >= CRAWL_FIELDS
    assert (crawl["status"], crawl["success"], crawl["total_pages"]) == ("completed", True, 2)
    assert set(crawl["aggregate_timing"]) == {"chunking_ms", "embedding_ms", "qdrant_ms", "bm25_ms"}
    assert set(crawl["operations"]["embedding"]) == {
        *("count", "failed", "total_ms", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms", "failed_ms"),
    }
    assert set(crawl["queue_wait"]) == {"mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms"}
    assert datetime.fromisoformat(crawl["initiated_at"]) == NOON
    for name in ("started_at", "completed_at", "searchable_at", "last_fact_at"):
        assert datetime.fromisoformat(crawl[name]).tzinfo is not None
    assert crawl["per_page_metrics"] is None
    assert len(detailed["per_page_metrics"]) == 10
    assert set(detailed["per_page_metrics"][0]) == {
        *("url", "operation_type", "operation_name", "duration_ms", "success", "timestamp"),
    }


async def test_two_crawls_are_compared(database: Database, client: httpx2.AsyncClient):
    for crawl_id, urls in (("crawl-1", (A, B)), ("crawl-2", (C,))):
        await deliver_pages(database, crawl_id, *urls)
        await index_pages(database, crawl_id)

    compared = await found(client, "/api/metrics/crawls/crawl-1/compare", against="crawl-2")

    assert (compared["a"]["crawl_id"], compared["b"]["crawl_id"]) == ("crawl-1", "crawl-2")
    assert compared["numbers"]["total_pages"] == {"a": 2, "b": 1, "ratio": 2.0}
    assert compared["numbers"]["duration_ms"] == {"a": None, "b": None, "ratio": None}
    assert compared["stages"]["embedding"]["count"]["ratio"] == 2
    unknown = await client.get("/api/metrics/crawls/crawl-1/compare", params={"against": "nobody"})
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "Crawl not found: nobody")
    alone = await client.get("/api/metrics/crawls/crawl-1/compare")
    assert alone.status_code == 422


async def test_lists_hold_what_matches_and_how_many(database: Database, client: httpx2.AsyncClient):
    for number in range(3):
        await deliver(database, f"crawl-{number}", "crawl.started", at=NOON + timedelta(hours=number))
    await deliver(database, "crawl-0", "crawl.completed")
    crawls = "/api/metrics/crawls"

    async def ids(**params: Any) -> list[str]:
        return [crawl["crawl_id"] for crawl in (await found(client, crawls, **params))["crawls"]]

    first = await found(client, crawls, limit=1)
    assert (len(first["crawls"]), first["total"]) == (1, 3)
    assert set(first["crawls"][0]) >= CRAWL_FIELDS
    assert await ids() == ["crawl-2", "crawl-1", "crawl-0"]
    assert await ids(status="completed") == ["crawl-0"]
    assert await ids(url="unknown", offset=1) == ["crawl-1", "crawl-0"]
    assert await ids(since="2025-01-31T13:00:00") == ["crawl-2", "crawl-1"]
    assert await ids(since="2025-01-31T15:00:00+02:00", until="2025-01-31T14:00:00Z") == ["crawl-1"]
    unescaped_plus = await client.get(f"{crawls}?since=2025-01-31T15:00:00+02:00")
    assert unescaped_plus.json()["total"] == 2


async def test_pages_attempts_and_deliveries_of_a_crawl(database: Database, client: httpx2.AsyncClient):
    await deliver(database, "crawl-1", "crawl.page", [document(A, final_url=B)])
    await index_pages(database, "crawl-1")
    await deliver_pages(database, "crawl-1", C)
    await fail_pages(database, "crawl-1", "bad_text", "cannot embed")
    crawl = "/api/metrics/crawls/crawl-1"

    failed = await found(client, f"{crawl}/pages", state="failed")
    by_url = await found(client, f"{crawl}/pages", sort="url", limit=1)
    attempts = await found(client, f"{crawl}/attempts", url=A)
    deliveries = await found(client, f"{crawl}/deliveries")

    [page] = failed["pages"]
    assert set(page) >= PAGE_FIELDS
    assert (page["url"], page["error_code"], page["error"]) == (C, "bad_text", "cannot embed")
    assert (failed["total"], by_url["total"]) == (1, 2)
    assert (by_url["pages"][0]["url"], by_url["pages"][0]["final_url"]) == (A, B)
    assert [each["outcome"] for each in attempts["attempts"]] == ["indexed"]
    assert [each["event_type"] for each in deliveries["deliveries"]] == ["crawl.page"] * 2
    assert deliveries["total"] == 2


async def test_a_crawl_id_may_hold_anything_but_a_slash(database: Database, client: httpx2.AsyncClient):
    for crawl_id in ("ünï code", "a?b#c%d&e=f", "nul\x00inside", ".", "🐸"):
        await deliver(database, crawl_id, "crawl.started")

        answer = await found(client, f"/api/metrics/crawls/{quote(crawl_id, safe='').replace('.', '%2E')}")

        assert answer["crawl_id"] == crawl_id.replace("\x00", "�")


async def test_unknown_crawls_and_pages_are_404(database: Database, client: httpx2.AsyncClient):
    await deliver(database, "crawl-1", "crawl.started")
    for path in ("", "/pages", "/deliveries", "/attempts?url=x"):
        answer = await client.get(f"/api/metrics/crawls/nobody{path}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Crawl not found: nobody")

    nul = await client.get("/api/metrics/crawls/no%00body")
    page = await client.get("/api/metrics/crawls/crawl-1/attempts", params={"url": A})
    assert (nul.status_code, page.status_code) == (404, 404)
    assert page.json()["detail"] == f"Page not found in crawl crawl-1: {A}"


async def test_operations_requests_and_totals(database: Database, client: httpx2.AsyncClient):
    await deliver_pages(database, "crawl-1", A)
    await index_pages(database, "crawl-1")

    operations = await found(client, "/api/metrics/operations", crawl_id="crawl-1", operation_type="qdrant")
    lately = await found(client, "/api/metrics/operations", hours=1, since="2025-01-01", success=True)
    requests = await found(client, "/api/metrics/requests", hours=1, method="GET", status_code=200)
    summary = await found(client, "/api/metrics/summary", hours=1)

    assert [each["document_url"] for each in operations["operations"]] == [A]
    assert (operations["total"], lately["total"], requests) == (1, 6, {"requests": [], "total": 0})
    assert (summary["hours"], summary["crawls"]["total"]) == (1, 1)
    assert summary["operations"]["worker"]["count"] == 1


async def test_stats_without_and_with_an_index(app: FastAPI, client: httpx2.AsyncClient, tmp_path: Path):
    without = await found(client, "/api/stats")
    index = EdgeIndex.open(tmp_path / "index", dimension=4)
    try:
        await index.replace([indexed(A)])
        app.state.parts = ServiceWithIndex(**vars(app.state.parts), index=index)
        with_index = await found(client, "/api/stats")
    finally:
        await index.aclose()

    assert (without["documents"], without["chunks"]) == (0, 0)
    assert (without["index_chunks"], without["index_bytes"]) == (None, None)
    assert with_index["index_chunks"] == 1
    assert with_index["index_bytes"] > 0


@pytest.mark.parametrize(
    ("path", "culprit"),
    [
        ("/api/metrics/crawls?status=paused", "status"),
        ("/api/metrics/crawls?limit=0", "limit"),
        ("/api/metrics/crawls?limit=1001", "limit"),
        ("/api/metrics/crawls?limit=ten", "limit"),
        ("/api/metrics/crawls?offset=-1", "offset"),
        (f"/api/metrics/crawls?offset={2**63}", "offset"),
        ("/api/metrics/crawls?since=yesterday", "since"),
        ("/api/metrics/crawls?until=2025-02-30", "until"),
        ("/api/metrics/crawls?since=0001-01-01T00:00:00%2B10:00", "since"),
        ("/api/metrics/crawls/x?include_per_page=perhaps", "include_per_page"),
        ("/api/metrics/crawls/x/pages?state=lost", "state"),
        ("/api/metrics/crawls/x/pages?sort=oldest", "sort"),
        ("/api/metrics/crawls/x/attempts", "url"),
        ("/api/metrics/summary?hours=0", "hours"),
        ("/api/metrics/summary?hours=8761", "hours"),
        ("/api/metrics/requests?status_code=7", "status_code"),
        ("/api/metrics/operations?success=maybe", "success"),
    ],
)
async def test_wrong_parameters_are_422_and_named(path: str, culprit: str):
    async with client_of(service(None)) as client:
        answer = await client.get(path)

    assert answer.status_code == 422
    [issue] = answer.json()["detail"]
    assert issue["loc"] == ["query", culprit]
    assert issue["msg"]


async def test_odd_but_readable_questions_are_answered(database: Database, client: httpx2.AsyncClient):
    await deliver(database, "crawl-1", "crawl.started")
    for question in (
        "crawls?url=%00",
        "crawls?url=%ff%fe",
        f"crawls?offset={2**63 - 1}&limit=1000",
        "crawls?since=0001-01-01&until=9999-12-31",
        f"crawls?url={'x' * 20_000}",
        "operations?crawl_id=%00&operation_type=%00&job_id=%00&document_url=%00&url=%00&operation_name=%00",
        "requests?url=%00&method=%00",
        f"requests?offset={2**31}",
        "summary?hours=8760",
        "crawls/crawl-1/pages?offset=2147483648",
        "crawls/crawl-1/deliveries?offset=2147483648",
    ):
        answer = await client.get(f"/api/metrics/{question}")
        assert answer.status_code == 200, (question, answer.text)


def test_the_reference_names_each_answer():
    described = service(None).openapi()
    for path, methods in described["paths"].items():
        schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema["$ref"].startswith("#/components/schemas/"), path
    crawl = described["components"]["schemas"]["CrawlMetricsResponse"]
    assert set(crawl["properties"]) >= CRAWL_FIELDS
    assert "description" in crawl["properties"]["searchable_at"]


def indexed(url: str) -> IndexedDocument:
    dense = np.array([[1, 0, 0, 0]], dtype=np.float32)
    return IndexedDocument(url, texts=["some words"], dense=dense, sparse=[SparseVector([1], [1.0])])
