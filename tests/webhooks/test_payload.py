"""The reading of bodies: any body gives a delivery or an error that names the fault, never another error."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.webhooks import payload
from crawlscope.webhooks.payload import Delivery, MalformedDelivery, UnreadableDelivery

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
A = {"metadata": {"sourceURL": "https://a.example/"}}
STARTED = {"type": "crawl.started", "id": "crawl-1"}
FAILED = {"type": "crawl.page", "id": "crawl-1", "success": False, "error": "It broke."}


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def read(body: Any) -> Delivery:
    return payload.read(encoded(body))


def identity(body: Any) -> Any:
    return payload.identity(read(body), encoded(body))


@pytest.mark.parametrize(
    "body",
    [
        {"type": "account.low_credits", "teamId": "team-1"},
        {"type": "map.completed", "id": "x" * 300, "data": ["https://a.example/"], "metadata": [1]},
        {"type": "map", "id": None, "data": 7},
    ],
)
def test_of_an_unknown_type_only_the_type_is_read(body: dict[str, Any]) -> None:
    assert (read(body).event_type, read(body).known) == (body["type"], False)


@pytest.mark.parametrize("data", [["https://a.example/"], "some text", 7, {"answer": 42}, [5], None])
@pytest.mark.parametrize("event_type", ["extract.completed", "agent.completed", "monitor.page"])
def test_what_is_no_crawl_may_bring_any_data(event_type: str, data: Any) -> None:
    delivery = read({"type": event_type, "id": "job-1", "data": data})
    assert (delivery.known, delivery.documents, delivery.brings_pages) == (True, [], False)
    assert payload.content_of(delivery, b"", NOON).without_url == 0


@pytest.mark.parametrize(
    "ids", [{"id": None, "jobId": "crawl-1"}, {"id": "", "jobId": "crawl-1"}, {"jobId": "crawl-1"}]
)
def test_either_id_names_the_crawl(ids: dict[str, Any]) -> None:
    body = {"type": "crawl.started", **ids}
    assert read(body).crawl_id == payload.crawl_id_of(encoded(body)) == "crawl-1"


PLACES = ("metadata", "error", "webhookId", "more")


def deep_body(place: str, levels: int, *, cut_emoji: bool = False) -> bytes:
    value = b"[%s]" % ((b'"\\ud83d", ' if cut_emoji else b"") + b"[" * levels + b"]" * levels)
    if place == "metadata":
        value = b'{"x": %s}' % value
    return b'{"type": "crawl.page", "id": "crawl-1", "data": [{}], "%s": %s}' % (place.encode(), value)


@pytest.mark.parametrize("cut_emoji", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_nested_two_hundred_levels_deep_is_taken_in(place: str, cut_emoji: bool) -> None:
    body = deep_body(place, 197, cut_emoji=cut_emoji)
    delivery = payload.read(body)
    payload.identity(delivery, body)
    payload.content_of(delivery, b"", NOON)


@pytest.mark.parametrize("cut_emoji", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("levels", [200, 800])
def test_what_is_nested_deeper_is_refused_and_its_crawl_known(
    place: str, levels: int, cut_emoji: bool
) -> None:
    body = deep_body(place, levels, cut_emoji=cut_emoji)
    with pytest.raises(MalformedDelivery, match="nested too deeply"):
        payload.read(body)
    assert payload.crawl_id_of(body) == "crawl-1"


@pytest.mark.parametrize("place", PLACES)
def test_what_is_nested_without_end_is_unreadable(place: str) -> None:
    body = deep_body(place, 100_000)
    with pytest.raises(UnreadableDelivery, match="recursion limit"):
        payload.read(body)
    assert payload.crawl_id_of(body) is None


def test_a_cut_emoji_is_replaced():
    body = b'{"type": "crawl.started", "id": "c", "metadata": {"a": "\\ud83d"}, "error": "\\ud83d", "n": NaN}'
    delivery = payload.read(body)
    assert (delivery.metadata, delivery.error) == ({"a": "�"}, "�")


def test_metadata_say_what_was_written():
    metadata = {"note": "see \\u0000", "nul": "\x00", "\\u0000": "C:\\"}
    assert read({**STARTED, "metadata": metadata}).metadata == {**metadata, "nul": "�"}


@pytest.mark.parametrize("code", ["A\x00B", "A\ud800B"])
def test_an_error_code_can_be_kept(code: str) -> None:
    sent = {**FAILED, "error": {"code": code, "message": "It broke."}, "data": [A]}
    [page] = payload.content_of(read(sent), b"", NOON).pages
    assert page.error_code == "a�b"


@pytest.mark.parametrize("data", [[], None, [{}], [{"metadata": {}}], [{"metadata": {"sourceURL": " "}}]])
def test_failures_without_a_url_have_no_identity(data: Any) -> None:
    assert identity({**FAILED, "data": data}) is None
    assert identity({**FAILED, "data": data, "webhookId": "w"}) is not None


@pytest.mark.parametrize(
    "naming",
    [
        lambda url: {"metadata": {"sourceURL": url}},
        lambda url: {"metadata": {"url": url}},
        lambda url: {"url": url},
    ],
)
def test_failures_are_identified_by_their_url(naming: Any) -> None:
    of_a, of_b = ({**FAILED, "data": [naming(f"https://{name}.example/")]} for name in "ab")
    assert identity(of_a) == identity(dict(reversed(of_a.items())))
    assert identity(of_a) is not None
    assert identity(of_a) != identity(of_b)
    assert identity(of_a) != identity({**of_a, "error": "It broke in another way."})


def test_pages_that_are_no_crawls_are_identified_by_the_body():
    first, second = ({"type": "monitor.page", "id": "m", "data": {"url": url}} for url in "ab")
    assert identity(first) == identity(first)
    assert identity(first) != identity(second)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
odd_metadata = st.dictionaries(
    st.sampled_from(["sourceURL", "url", "statusCode", "scrapeId", "title", "error"]), anything
)
odd_documents = st.fixed_dictionaries(
    {},
    optional={
        "metadata": odd_metadata | anything,
        "content": anything,
        "markdown": anything,
        "url": anything,
    },
)
odd_bodies = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["crawl.page", "crawl.completed", "batch_scrape.page", "agent.completed", "x.y"]
        )
    },
    optional={
        "id": st.text(max_size=3) | anything,
        "jobId": anything,
        "webhookId": anything,
        "success": anything,
        "error": anything | st.fixed_dictionaries({"code": anything, "message": anything}),
        "data": st.lists(odd_documents, max_size=2) | anything,
        "metadata": st.dictionaries(st.text(max_size=5), anything, max_size=2) | anything,
    },
)


@given(odd_bodies)
def test_every_body_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        delivery = read(body)
    except MalformedDelivery:
        return
    payload.identity(delivery, encoded(body))
    for page in payload.content_of(delivery, b"", NOON).pages:
        texts = (
            page.source_url,
            page.url,
            page.markdown,
            page.title,
            page.language,
            page.error_code,
            page.error,
        )
        assert not any("\x00" in text for text in texts if text)


@pytest.mark.parametrize("text", ["word " * 40, "größer " * 40])
def test_a_text_is_found_behind_one_that_begins_like_it(text: str) -> None:
    metadata = {"sourceURL": "https://a.example/", "description": f"{text}!"}
    body = encoded({**FAILED, "success": True, "data": [{"metadata": metadata, "markdown": text}]})
    _, content, _ = payload.received(body, NOON)
    [page] = content.pages
    assert page.text_at is not None
    begins, ends = page.text_at
    assert json.loads(body[begins:ends]) == text
