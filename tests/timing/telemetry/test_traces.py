"""Which spans are made, and which are not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.core.vocabulary import OperationType
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.telemetry import traces
from crawlscope.timing.telemetry.traces import Kind, Span
from tests.support.producing import work

TRACE_ID, SPAN_ID = "5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE_ID}-{SPAN_ID}-01"
NOW = datetime.now(UTC)


class Collected(list[Span]):
    """A tracer that keeps its spans."""

    sampling = True

    def samples(self, _trace_id: int) -> bool:
        return self.sampling

    def export(self, span: Span) -> None:
        self.append(span)


@pytest.fixture
def collected() -> Iterator[Collected]:
    spans = Collected()
    with traces.use(spans):
        yield spans


def measure_page(traceparent: object = None, failing: bool = False) -> None:
    ids = {"crawl_id": "crawl-1", "job_id": "7", "document_url": "https://me:secret@a.example/?q=1"}
    with traces.page("crawl-1", 1, 1, NOW - timedelta(seconds=5), traceparent), scope(**ids, collect=leave):
        try:
            with TimingContext(OperationType.WORKER, "index_document") as whole:
                with TimingContext(OperationType.EMBEDDING, "embed_batch", metadata={"chunks": 3}):
                    work("too much" if failing else None)
                whole.metadata["attempt"] = 2
        except RuntimeError:
            assert failing


def leave(_measured: object) -> None:
    """Storing is not what is tested."""


@pytest.mark.parametrize(
    "invalid",
    [
        *(None, 7, "", "00", VALID.upper(), f"ff-{TRACE_ID}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}"),
        *(f"00-{'0' * 32}-{SPAN_ID}-01", f"00-{TRACE_ID}-{'0' * 16}-01", f"{VALID}x", f" {VALID}"),
    ],
)
def test_an_invalid_traceparent_is_ignored(invalid: object):
    assert traces.parsed(invalid) is None


def test_a_traceparent_of_a_later_version_is_read():
    context = traces.parsed(f"01-{TRACE_ID}-{SPAN_ID}-03-more")
    assert context is not None
    assert context.traceparent == VALID


def test_every_process_knows_the_span_of_a_crawl(collected: Collected):
    assert traces.crawl_context("crawl-1", None) == traces.crawl_context("crawl-1", "nonsense")
    assert traces.crawl_context("crawl-1", None) != traces.crawl_context("crawl-2", None)
    continued = traces.crawl_context("crawl-1", VALID)
    assert f"{continued.trace_id:032x}" == TRACE_ID
    assert continued.span_id == traces.crawl_context("crawl-1", None).span_id


def test_a_page_has_spans_of_its_wait_its_stages_and_the_whole(collected: Collected):
    measure_page(VALID)
    embedding, wait, whole = collected

    assert (embedding.parent, wait.parent, whole.parent) == (whole.context, whole.context, None)
    assert whole.kind is Kind.CONSUMER
    assert wait.ended - wait.began >= 5
    assert whole.began == wait.began
    assert [f"{link.trace_id:032x}" for link in whole.links] == [TRACE_ID]
    assert embedding.attributes["crawlscope.chunks"] == 3
    assert whole.attributes == {
        "crawlscope.crawl.id": "crawl-1",
        "crawlscope.job.id": "7",
        "url.full": "https://a.example/?q=1",
        "crawlscope.attempt": 2,
    }


def test_attempts_at_a_page_share_its_trace(collected: Collected):
    measure_page()
    measure_page()
    assert len({span.context.trace_id for span in collected}) == 1
    assert len({span.context.span_id for span in collected}) == len(collected)


def test_a_failed_stage_says_why(collected: Collected):
    measure_page(failing=True)
    assert [span.error for span in collected if span.name != "queue_wait"] == ["too much", "too much"]


def test_what_its_initiator_does_not_sample_is_not_traced(collected: Collected):
    measure_page(f"00-{TRACE_ID}-{SPAN_ID}-00")
    assert collected == []


def test_what_its_initiator_samples_is_traced_whatever_the_sampler_says(collected: Collected):
    collected.sampling = False
    measure_page()
    assert collected == []
    measure_page(VALID)
    assert len(collected) == 3


def test_a_request_for_several_pages_is_linked_to_each(collected: Collected):
    works = []
    for number in (1, 2):
        with traces.page("crawl-1", number, 1, None, VALID):
            works.append(traces.current())
    pages = [work for work in works if work]
    with pytest.raises(RuntimeError), traces.shared_request(pages, "embeddings", {}) as sent:
        raise RuntimeError("no answer")
    [span] = collected
    assert sent == span.context
    assert span.parent == traces.crawl_context("crawl-1", VALID)
    assert list(span.links) == [page.span for page in pages]
    assert span.error == "no answer"


def test_without_a_tracer_nothing_is_made():
    with traces.page("crawl-1", 1, 1, NOW, VALID):
        assert traces.current() is None
    with traces.request(VALID) as trace:
        assert trace is None
