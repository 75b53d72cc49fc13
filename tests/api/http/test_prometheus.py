"""Prometheus's scrapes: the work of all processes, in names and units that promtool accepts."""

import asyncio
import shutil
import socket
import subprocess
from datetime import timedelta
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crawlscope.api.http import health, prometheus
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.pages.index_page import Outcome
from crawlscope.processes.maintenance import ended_crawls
from crawlscope.sessions import repository as sessions
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.telemetry import conventions, reports
from crawlscope.timing.telemetry.meters import Totals
from tests.api.http.conftest import Serve, Service
from tests.support.producing import (
    NOON,
    A,
    B,
    attempt,
    deliver,
    deliver_pages,
    document,
    end,
    index_pages,
    queued,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(service: Service) -> Samples:
    answer = await service.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"crawlscope_{name}", frozenset(labels.items())]


async def test_metrics_need_the_secret(service: Service):
    assert (await service.anonymous.get("/metrics")).status_code == 401
    bearer = {"Authorization": f"Bearer {service.parts.secret}"}
    assert (await service.anonymous.get("/metrics", headers=bearer)).status_code == 200


async def test_the_work_of_every_process_is_added_up(database: Database, serve: Serve):
    async with reports.reported(database, "index_worker"):
        await deliver_pages(database, "crawl-1", A, B)
        await deliver(database, "crawl-1", "crawl.page", [document("https://c.example/", status_code=404)])
        good, bad = await queued(database, "crawl-1")
        await end(database, *await attempt(database, good), Outcome(PageState.INDEXED, 3))
        put_back = Outcome(PageState.QUEUED, error_code="embedder_unavailable", error="down")
        await end(database, *await attempt(database, bad, failing="down"), put_back)
    async with reports.reported(database, "index_worker"):  # as after a restart
        [again] = await queued(database, "crawl-1")
        await end(database, *await attempt(database, again), Outcome(PageState.UNCHANGED))
    samples = await scraped(await serve())

    assert value(samples, "pages_settled_total", state="indexed") == 1
    assert value(samples, "pages_settled_total", state="unchanged") == 1
    assert value(samples, "pages_settled_total", state="failed") == 1
    assert value(samples, "page_attempts_retried_total") == 1
    assert value(samples, "deliveries_total", status="queued") == 3
    assert value(samples, "page_queue_wait_seconds_count") == 3
    worked = {"operation": "worker", "outcome": "success"}
    assert value(samples, "operation_duration_seconds_count", **worked) == 2
    assert value(samples, "operation_duration_seconds_bucket", **worked, le="+Inf") == 2
    failed = {"operation": "embedding", "outcome": "error"}
    assert value(samples, "operation_duration_seconds_count", **failed) == 1
    assert value(samples, "process_cpu_seconds_total", process="index_worker") > 0
    other = await scraped(await serve())
    assert {key: other[key] for key in samples if "pages" in key[0]} == {
        key: samples[key] for key in samples if "pages" in key[0]
    }


async def test_the_state_of_the_installation_is_read_from_the_database(database: Database, serve: Serve):
    await deliver_pages(database, "crawl-1", A, B)
    async with reports.reported(database, "crawler"):
        await asyncio.sleep(0)
        samples = await scraped(await serve())

    assert value(samples, "queue_jobs", queue="index_page", state="queued") == 2
    assert value(samples, "queue_oldest_job_age_seconds", queue="index_page") > 0
    assert value(samples, "queue_oldest_job_age_seconds", queue="crawl_site") == 0
    assert value(samples, "crawls_in_progress") == 1
    assert value(samples, "dependency_up", dependency="database") == 1
    assert value(samples, "dependency_up", dependency="embedder") == 0
    assert value(samples, "database_size_bytes") > 1_000_000


async def test_requests_count_by_their_route_and_refused_deliveries_by_cause(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reports, "INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(prometheus, "KEPT_SECONDS", 0.0)
    service = await serve()
    await service.anonymous.post("/api/webhook/firecrawl", json={})
    await service.http.get("/api/metrics/crawls/a-crawl")
    await service.http.get("/api/metrics/crawls/another%2Fcrawl")
    await service.http.request("BREW", "/no/such/path/")

    def request(method: str, route: str, status: str) -> dict[str, str]:
        return {"http_request_method": method, "http_route": route, "http_response_status_code": status}

    count, last = "http_request_duration_seconds_count", request("other", "other", "404")
    samples = await scraped(service)
    while (f"crawlscope_{count}", frozenset(last.items())) not in samples:
        await asyncio.sleep(0.1)
        samples = await scraped(service)

    assert value(samples, count, **request("GET", "/api/metrics/crawls/{crawl_id}", "404")) == 2
    assert value(samples, count, **request("POST", "/api/webhook/firecrawl", "401")) == 1
    assert value(samples, "deliveries_refused_total", cause="no_credentials") == 1
    assert value(samples, "deliveries_refused_total", cause="too_large") == 0


async def test_a_crawl_counts_once_when_it_has_ended(
    database: Database, serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sessions, "QUIET", timedelta(0))
    await deliver_pages(database, "crawl-1", A, at=NOON)
    await deliver_pages(database, "crawl-1", B, at=NOON + timedelta(seconds=30))
    await deliver(database, "crawl-1", "crawl.completed", at=NOON + timedelta(seconds=30))
    await count_until_done(database)  # which has a page that is not settled
    await index_pages(database, "crawl-1")
    await asyncio.gather(*[count_until_done(database) for _ in range(3)])
    await deliver(database, "crawl-1", "crawl.completed", at=NOON + timedelta(seconds=40))
    await count_until_done(database)

    samples = await scraped(await serve())

    assert value(samples, "crawls_ended_total", status="completed") == 1
    assert value(samples, "crawls_ended_total", status="failed") == 0
    assert value(samples, "crawl_duration_seconds_bucket", le="15.0") == 0
    assert value(samples, "crawl_duration_seconds_bucket", le="60.0") == 1
    assert value(samples, "crawl_time_to_searchable_seconds_count") == 1


@pytest.mark.parametrize("is_silent", [False, True])
async def test_without_the_database_the_service_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, is_silent: bool
):
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.5)
    monkeypatch.setattr(prometheus, "CHECK_SECONDS", 0.5)
    service = await serve()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and says nothing
        port = silent.getsockname()[1] if is_silent else 1
        service.parts.database = Database.open(f"postgresql://nobody@127.0.0.1:{port}/nothing")
        samples = await scraped(service)
    assert value(samples, "dependency_up", dependency="database") == 0
    assert ("process_resident_memory_bytes", frozenset()) in samples


async def test_what_could_not_be_reported_is_reported_later(database: Database):
    """Nothing is lost while the database is unavailable, and nothing counts twice."""
    totals = Totals()
    totals.add(conventions.PAGES, ("indexed",), 2)
    totals.add(conventions.QUEUE_WAITS, (), 0.3)
    taken = totals.take()
    totals.add(conventions.QUEUE_WAITS, (), 100_000.0)
    totals.put_back(taken)
    async with database.transaction() as connection:
        await reports.add_totals(connection, totals.take())
        await reports.add_totals(connection, totals.take())
        stored = await reports.totals_of_all(connection)
    waits = stored[conventions.QUEUE_WAITS, ()]
    assert stored[conventions.PAGES, ("indexed",)].value == 2
    assert waits.value == 100_000.3
    assert waits.buckets == [0, 0, 1, *[0] * (len(conventions.WAIT_SECONDS) - 3), 1]


async def test_processes_add_to_the_same_totals_at_the_same_time(database: Database):
    async def add() -> None:
        for _ in range(20):
            totals = Totals()
            totals.add(conventions.QUEUE_WAITS, (), 0.25)
            totals.add(conventions.PAGES, ("indexed",), 1)
            async with database.transaction() as connection:
                await reports.add_totals(connection, totals.take())

    await asyncio.gather(*[add() for _ in range(4)])
    async with database.transaction() as connection:
        stored = await reports.totals_of_all(connection)
    assert stored[conventions.PAGES, ("indexed",)].value == 80
    assert sum(stored[conventions.QUEUE_WAITS, ()].buckets) == 80


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
async def test_promtool_accepts_names_and_units(database: Database, serve: Serve):
    async with reports.reported(database, "index_worker"):
        await deliver_pages(database, "crawl-1", A)
        await index_pages(database, "crawl-1")
    answer = await (await serve()).http.get("/metrics")
    check = partial(
        subprocess.run, ["promtool", "check", "metrics"], check=False, capture_output=True, text=True
    )
    checked = await asyncio.to_thread(check, input=answer.text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


async def test_no_label_holds_what_a_sender_chooses(database: Database, serve: Serve):
    async with reports.reported(database, "index_worker"):
        await deliver_pages(database, "crawl-1", *[f"https://a.example/{number}" for number in range(5)])
        await index_pages(database, "crawl-1")
        with scope(collect=lambda _: None), TimingContext("a type of my own", "x", crawl_id="crawl-1"):
            pass
    answer = await (await serve()).http.get("/metrics")
    assert 'operation="other"' in answer.text
    for chosen in ("a.example", "crawl-1", "my own"):
        assert chosen not in answer.text


async def count_until_done(database: Database) -> None:
    while await database.run(ended_crawls.count_ended):
        pass
