"""A running service as monitoring systems see it: a receiver of OpenTelemetry, and a real Prometheus."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.deploy.test_monitoring import panels
from tests.support.documentation import ROOT
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.loopback import free_port
from tests.support.fakes.otlp_receiver import OtlpReceiver, attributes, traceparents
from tests.support.stack import API_SECRET, Stack, eventually, new_crawl_id, page_event, running_stack

TRACE_ID, INITIATOR = "5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = "2" * 16
STAGES = {"chunking chunk_text", "bm25 index_document", "embedding embed_batch", "qdrant index_chunks"}


@dataclass(frozen=True)
class Monitored:
    stack: Stack
    receiver: OtlpReceiver
    embedder: FakeEmbeddingServer
    requested_crawl: str
    """Requested over the API from the built-in crawler. It fails, because nobody listens there."""


@pytest.fixture(scope="module")
def monitored() -> Iterator[Monitored]:
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-journeys-") as folder,
        pytest.MonkeyPatch.context() as environment,
        FakeEmbeddingServer() as embedder,
        OtlpReceiver() as receiver,
    ):
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        environment.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tests")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        environment.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
        settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
        with running_stack(Path(folder) / "data", **settings) as stack:
            token = (stack.data_dir / "local-token").read_text()
            headers = {"traceparent": f"00-{TRACE_ID}-{CLIENT}-01", "X-Crawlscope-Local": token}
            crawl = {"url": f"http://127.0.0.1:{free_port()}/"}
            requested = stack.http.post("/api/crawls", json=crawl, headers=headers).json()["crawl_id"]
            yield Monitored(stack, receiver, embedder, requested)


@pytest.fixture(scope="module")
def crawl_id(monitored: Monitored) -> str:
    """A crawl of two pages, which its initiator traces."""
    crawl_id, stack = new_crawl_id(), monitored.stack
    metadata = {"traceparent": f"00-{TRACE_ID}-{INITIATOR}-01", "url": "https://example.com/"}
    for path in ("a", "b"):
        event = page_event(crawl_id, f"https://user:secret@example.com/{path}") | {"metadata": metadata}
        assert stack.post_event(event).status_code == 202
    ended = {"success": True, "type": "crawl.completed", "id": crawl_id, "data": [], "metadata": metadata}
    assert stack.post_event(ended).status_code == 202
    stack.settled(crawl_id)
    return crawl_id


def spans_of(monitored: Monitored, crawl_id: str) -> list[Any]:
    """All spans, when that of the crawl has come, which is the last one."""
    return eventually(
        monitored.receiver.spans,
        lambda spans: any(
            attributes(span).get("crawlscope.crawl.id") == crawl_id for span in named(spans, "crawl")
        ),
    )


def crawl_of(spans: list[Any], crawl_id: str) -> Any:
    [crawl] = [span for span in named(spans, "crawl") if attributes(span)["crawlscope.crawl.id"] == crawl_id]
    return crawl


def named(spans: list[Any], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def test_the_trace_of_the_initiator_goes_on(monitored: Monitored, crawl_id: str):
    spans = spans_of(monitored, crawl_id)
    crawl = crawl_of(spans, crawl_id)

    assert crawl.trace_id.hex() == TRACE_ID
    assert crawl.parent_span_id.hex() == INITIATOR
    assert attributes(crawl)["crawlscope.crawl.status"] == "completed"
    assert attributes(crawl)["crawlscope.crawl.pages"] == 2
    [crawling] = [span for span in named(spans, "crawling") if span.parent_span_id == crawl.span_id]
    assert crawling.trace_id == crawl.trace_id


def test_each_page_has_a_trace_that_is_linked_to_its_crawl(monitored: Monitored, crawl_id: str):
    spans = spans_of(monitored, crawl_id)
    crawl = crawl_of(spans, crawl_id)
    pages = named(spans, "worker index_document")

    assert len({page.trace_id for page in pages}) == 2
    for page in pages:
        assert page.trace_id != crawl.trace_id
        assert [(link.trace_id, link.span_id) for link in page.links] == [(crawl.trace_id, crawl.span_id)]
        children = [span for span in spans if span.parent_span_id == page.span_id]
        assert {child.name for child in children} >= STAGES | {"queue_wait"}
        for child in children:
            assert child.trace_id == page.trace_id
            assert page.start_time_unix_nano <= child.start_time_unix_nano
            assert child.end_time_unix_nano <= page.end_time_unix_nano + 2_000_000
    urls = {attributes(page)["url.full"] for page in pages}
    assert urls == {"https://example.com/a", "https://example.com/b"}  # without the password


def test_the_embedder_can_go_on_with_the_trace(monitored: Monitored, crawl_id: str):
    spans = spans_of(monitored, crawl_id)
    sent = [each.traceparent for each in monitored.embedder.requests if each.traceparent]
    known = traceparents(spans)
    pages = {page.span_id for page in named(spans, "worker index_document")}

    assert sent
    for traceparent in sent:
        request = known[traceparent]
        assert request.name == "embeddings"
        assert request.trace_id.hex() == TRACE_ID
        assert {link.span_id for link in request.links} <= pages
        assert attributes(request)["gen_ai.request.model"] == monitored.embedder.model


def test_a_client_of_the_api_can_trace_its_request(monitored: Monitored):
    monitored.stack.http.get("/api/stats", headers={"traceparent": f"00-{TRACE_ID}-{'1' * 16}-01"})
    [request] = eventually(
        lambda: [span for span in monitored.receiver.spans() if span.parent_span_id.hex() == "1" * 16], bool
    )
    assert (request.name, request.trace_id.hex()) == ("GET /api/stats", TRACE_ID)
    assert attributes(request)["http.response.status_code"] == 200


def test_a_crawl_goes_on_with_the_trace_of_its_request(monitored: Monitored):
    spans = spans_of(monitored, monitored.requested_crawl)
    [request] = [span for span in spans if span.parent_span_id.hex() == CLIENT]
    [crawl] = [span for span in named(spans, "crawl") if span.parent_span_id == request.span_id]
    assert request.name == "POST /api/crawls"
    assert crawl.trace_id.hex() == TRACE_ID
    assert attributes(crawl)["crawlscope.crawl.status"] == "failed"
    assert crawl.status.message


def test_metrics_are_exported_by_each_process(monitored: Monitored, crawl_id: str):
    eventually(
        lambda: monitored.receiver.points("crawlscope.page.settled"),
        lambda points: any(attributes(each) == {"state": "indexed"} and each.as_int == 2 for each in points),
    )
    durations = monitored.receiver.points("crawlscope.operation.duration")
    assert {attributes(point)["operation"] for point in durations} >= {"worker", "embedding", "webhook"}
    jobs = eventually(lambda: monitored.receiver.points("crawlscope.queue.jobs"), bool)
    assert {"queue": "index_page", "state": "queued"} in [attributes(point) for point in jobs]
    kinds = {resource["crawlscope.process"] for resource in monitored.receiver.resources()}
    assert kinds >= {"api", "index_worker", "crawler"}
    assert {resource["service.name"] for resource in monitored.receiver.resources()} == {"crawlscope"}
    assert {headers.get("x-tenant") for headers in monitored.receiver.headers} == {"tests"}


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is missing; on Debian and Ubuntu: apt-get install prometheus",
)
def test_a_real_prometheus_scrapes_the_service_and_evaluates_the_alerts(
    monitored: Monitored, crawl_id: str, tmp_path: Path
):
    with running_prometheus(monitored.stack.url, tmp_path) as prometheus:
        ask = prometheus.ask
        settled = eventually(
            lambda: ask("crawlscope_pages_settled_total"), lambda found: found.get("indexed") == 2
        )
        assert settled.keys() == {"indexed", "unchanged", "empty", "failed", "cancelled"}
        assert eventually(lambda: ask("crawlscope_crawls_ended_total"), lambda found: found["completed"] == 1)
        assert ask('crawlscope_processes{process="index_worker"}') == {"index_worker": 1}
        p95 = ask(
            "histogram_quantile(0.95, sum by (le, operation) (crawlscope_operation_duration_seconds_bucket))"
        )
        assert 0 < p95["worker"] < 300
        assert ask('up{job="crawlscope"}') == {"crawlscope": 1}
        assert ask("ALERTS{alertname=~'CrawlscopeDown|CrawlscopeNoWorker|CrawlscopeDeliveriesRefused'}") == {}

        for title, query, labels in dashboard_targets():
            found = eventually(partial(prometheus.query, query), bool) if title not in QUIET else []
            assert all(labels <= each["metric"].keys() for each in found), (title, query, found)


QUIET = {"Refused deliveries"}
"""Panels without data, because nothing happened."""


def dashboard_targets() -> Iterator[tuple[str, str, set[str]]]:
    """Title, query and the labels of the legend, as Grafana asks where metrics are scraped each second."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "10s").replace("$job", "crawlscope")
            yield panel["title"], query, set(re.findall(r"{{(\w+)}}", target["legendFormat"]))


@dataclass(frozen=True)
class Prometheus:
    process: "subprocess.Popen[bytes]"
    http: httpx2.Client
    log: Path

    def query(self, query: str) -> list[dict[str, Any]]:
        try:
            answer = self.http.get("/api/v1/query", params={"query": query})
        except httpx2.ConnectError:
            assert self.process.poll() is None, self.log.read_text()
            return []
        if answer.status_code == 503:  # it has not read its configuration yet
            return []
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["data"]["result"]
        return results

    def ask(self, query: str) -> dict[str, float]:
        """The values by the last label."""
        named = ("state", "status", "operation", "process", "job")
        return {
            next(each["metric"][name] for name in named if name in each["metric"]): float(each["value"][1])
            for each in self.query(query)
        }


@contextmanager
def running_prometheus(url: str, folder: Path) -> Iterator[Prometheus]:
    """With the project's own configuration."""
    for file in (ROOT / "deploy" / "prometheus").iterdir():
        text = file.read_text(encoding="utf-8")
        faster = text.replace("15s", "1s").replace("127.0.0.1:8108", url.removeprefix("http://"))
        (folder / file.name).write_text(faster, encoding="utf-8")
    (folder / "crawlscope-secret").write_text(API_SECRET)
    address = f"127.0.0.1:{free_port()}"
    arguments = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    with (folder / "log").open("w") as log:
        command = ["prometheus", *[f"--{name}={value}" for name, value in arguments.items()]]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    with httpx2.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as http:
        try:
            yield Prometheus(process, http, folder / "log")
        finally:
            process.terminate()
            process.wait(timeout=60)
