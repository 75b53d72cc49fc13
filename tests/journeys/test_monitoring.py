"""A running service as monitoring systems see it: a receiver of OpenTelemetry, and a real Prometheus."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.otlp_receiver import OtlpReceiver, attributes, traceparents
from tests.support.stack import Stack, eventually, new_crawl_id, page_event, running_stack

TRACE_ID, INITIATOR = "5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = {"chunking chunk_text", "bm25 index_document", "embedding embed_batch", "qdrant index_chunks"}


@dataclass(frozen=True)
class Monitored:
    stack: Stack
    receiver: OtlpReceiver
    embedder: FakeEmbeddingServer


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
            yield Monitored(stack, receiver, embedder)


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


def named(spans: list[Any], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def test_the_trace_of_the_initiator_goes_on(monitored: Monitored, crawl_id: str):
    spans = spans_of(monitored, crawl_id)
    [crawl] = named(spans, "crawl")

    assert crawl.trace_id.hex() == TRACE_ID
    assert crawl.parent_span_id.hex() == INITIATOR
    assert attributes(crawl)["crawlscope.crawl.status"] == "completed"
    assert attributes(crawl)["crawlscope.crawl.pages"] == 2
    [crawling] = named(spans, "crawling")
    assert (crawling.trace_id, crawling.parent_span_id) == (crawl.trace_id, crawl.span_id)


def test_each_page_has_a_trace_that_is_linked_to_its_crawl(monitored: Monitored, crawl_id: str):
    spans = spans_of(monitored, crawl_id)
    [crawl] = named(spans, "crawl")
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


def test_metrics_are_exported_by_each_process(monitored: Monitored, crawl_id: str):
    settled = eventually(lambda: monitored.receiver.points("crawlscope.page.settled"), bool)
    assert attributes(settled[-1]) == {"state": "indexed"}
    assert settled[-1].as_int == 2
    durations = monitored.receiver.points("crawlscope.operation.duration")
    assert {attributes(point)["operation"] for point in durations} >= {"worker", "embedding", "webhook"}
    kinds = {resource["crawlscope.process"] for resource in monitored.receiver.resources()}
    assert kinds >= {"api", "index_worker", "crawler"}
    assert {resource["service.name"] for resource in monitored.receiver.resources()} == {"crawlscope"}
    assert {headers.get("x-tenant") for headers in monitored.receiver.headers} == {"tests"}
