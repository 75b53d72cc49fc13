"""Bodies as changedetection.io and Apprise send them, and as people write them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from crawlscope.changes.payload import Change, read_change
from crawlscope.webhooks.payload import MalformedDelivery, UnreadableDelivery

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
URL = "https://docs.example.com/queues"


def read(body: Any) -> Change:
    return read_change(body if isinstance(body, bytes) else json.dumps(body).encode(), NOON)


def test_the_documented_body():
    change = read(
        {
            "watch_url": URL,
            "watch_id": "c5d0ef40",
            "watch_title": "Queues",
            "diff": "(changed) A queue holds what waits.",
            "snapshot_url": "https://watch.example.com/preview/c5d0ef40",
            "detected_at": "2026-01-31 11:58:20 UTC",
        }
    )
    assert (change.watch_url, change.watch_id) == (URL, "c5d0ef40")
    assert change.detected_at == datetime(2026, 1, 31, 11, 58, 20, tzinfo=UTC)
    assert change.diff_summary == "(changed) A queue holds what waits."
    assert change.snapshot_url == "https://watch.example.com/preview/c5d0ef40"
    assert change.further == {"watch_title": "Queues"}


def envelope(message: str, title: str = "ChangeDetection.io Notification") -> dict[str, Any]:
    return {"version": "1.0", "title": title, "message": message, "attachments": [], "type": "info"}


def test_apprise_with_the_default_text():
    change = read(envelope(f"{URL} had a change.\n---\n(added) new words\n---\n"))
    assert (change.watch_url, change.watch_id, change.dated) == (URL, None, False)
    assert change.detected_at == NOON
    assert change.diff_summary
    assert "(added) new words" in change.diff_summary
    assert change.further == {"title": "ChangeDetection.io Notification", "type": "info"}


def test_apprise_with_the_page_in_the_title():
    assert read(envelope("It changed.", f"Notification - {URL}")).watch_url == URL


ODD_URLS = [
    "https://en.example/wiki/Heron_(bird)",
    "https://docs.example/a[1]?b[]=c",
    "https://docs.example/{lang}/it's",
    "https://docs.example/what?",
    "https://docs.example/wait...",
    "https://docs.example/search?q=a,b;c!",
    "https://docs.example/search?a=1&lt=2&amp=3",
    "https://docs.example/with a blank",
    "https://docs.example/(((",
    "https://docs.example/Ünïcode/東京。",
]


@pytest.mark.parametrize("url", ODD_URLS)
def test_any_url_is_read_as_it_is(url: str) -> None:
    default = {
        "title": f"ChangeDetection.io Notification - {url}",
        "message": f"{url} had a change.\n---\nx\n",
    }
    assert read(default).watch_url == url
    assert read({"message": default["message"]}).watch_url == url
    assert read({"title": default["title"], "message": "It changed."}).watch_url == url
    assert read({"watch_url": url}).watch_url == url
    assert read({"watch_url": f"source:{url}"}).watch_url == url
    assert read(envelope(json.dumps({"url": url}))).watch_url == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("Look at https://e.example/a.", "https://e.example/a"),
        ("Look (at https://e.example/a), please", "https://e.example/a"),
        ("[A page](https://e.example/wiki/Heron_(bird)) changed", "https://e.example/wiki/Heron_(bird)"),
        ("(https://e.example/wiki/Heron_(bird))!", "https://e.example/wiki/Heron_(bird)"),
        ("'https://e.example/it's'", "https://e.example/it's"),
        ("<https://e.example/a?b=[c]>", "https://e.example/a?b=[c]"),
        ('<a href="https://e.example/a?b=1&amp;c=2">A</a> changed', "https://e.example/a?b=1&c=2"),
        ("https://e.example/a?b=1&amp;c=2 had a change.<br>", "https://e.example/a?b=1&c=2"),
        ("Is it https://e.example/?", "https://e.example/"),
        ("**https://e.example/a** has changed", "https://e.example/a"),
        ("変更：https://e.example/a。", "https://e.example/a"),
        ("HTTPS://e.example/A had a change.\n(added) https://other.example/", "HTTPS://e.example/A"),
    ],
)
def test_the_sentence_around_a_url_is_none_of_it(text: str, url: str) -> None:
    assert read(envelope(text)).watch_url == url


def test_apprise_with_an_object_as_text():
    change = read(envelope(json.dumps({"url": URL, "uuid": "w", "diff": "d"})))
    assert (change.watch_url, change.watch_id, change.diff_summary) == (URL, "w", "d")


def test_screenshots_are_not_kept():
    sent = envelope(URL) | {"attachments": [{"base64": "AAAA"}]}
    assert "attachments" not in read(sent).further


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (("watch_id", "watch_uuid", "uuid"), "watch_id"),
        (("diff_summary", "diff", "message"), "diff_summary"),
    ],
)
def test_each_of_the_names(names: tuple[str, ...], field: str) -> None:
    for name in names:
        assert getattr(read({"url": URL, name: "value"}), field) == "value"


@pytest.mark.parametrize("name", ["snapshot_url", "preview_url", "diff_url"])
def test_the_snapshot_is_an_address(name: str) -> None:
    assert read({"url": URL, name: "https://watch.example/preview/w"}).snapshot_url == (
        "https://watch.example/preview/w"
    )


@pytest.mark.parametrize(
    "text",
    [
        '("Base URL" not set - see settings - notifications)/preview/c5d0ef40',
        "javascript:alert(1)",
        "ftp://watch.example/preview/w",
        "https://",
        "http://[",
    ],
)
def test_what_stands_in_place_of_the_snapshots_address_is_not_kept(text: str) -> None:
    change = read({"url": URL, "snapshot_url": text})
    assert (change.snapshot_url, change.further) == (None, {})
    both = read({"url": URL, "snapshot_url": text, "diff_url": "https://watch.example/diff/w"})
    assert both.snapshot_url == "https://watch.example/diff/w"


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-31T11:00:00Z",
        "2026-01-31T12:00:00+01:00",
        "2026-01-31 11:00:00 UTC",
        1769857200,
        "1769857200",
        1769857200.0,
        1769857200000,
    ],
)
def test_times_as_they_are_written(moment: Any) -> None:
    change = read({"url": URL, "timestamp": moment})
    assert (change.detected_at, change.dated) == (datetime(2026, 1, 31, 11, tzinfo=UTC), True)


@pytest.mark.parametrize(
    "moment", ["yesterday", "2026-01-31 12:00:00 CET", "", None, {}, True, -1, "9" * 400]
)
def test_a_time_that_cannot_be_read_is_now(moment: Any) -> None:
    change = read({"url": URL, "timestamp": moment})
    assert (change.detected_at, change.dated) == (NOON, False)


def test_an_unreadable_time_is_kept_as_it_came():
    assert read({"url": URL, "timestamp": "yesterday"}).further == {"unreadable_time": "yesterday"}


def test_nothing_is_detected_in_the_future():
    assert read({"url": URL, "timestamp": "2031-01-01T00:00:00Z"}).detected_at == NOON


def test_a_watch_of_the_source_is_a_watch_of_the_page():
    assert read({"url": f"source:{URL}"}).watch_url == URL


def test_what_a_template_leaves_in_a_text_is_let_pass():
    change = read(f'{{"url": "{URL}", "diff": "one\ntwo\tthree\\u0000"}}'.encode())
    assert change.diff_summary == "one\ntwo\tthree\N{REPLACEMENT CHARACTER}"


LONG = "https://a.example/" + "x" * 3_000


@pytest.mark.parametrize(
    "body", [{"url": LONG}, envelope(f"{LONG}, it says"), envelope(f"{'it says: ' * 3_000} {LONG}")]
)
def test_no_part_of_a_long_url_is_taken_for_the_page(body: dict[str, Any]) -> None:
    assert read(body).watch_url == LONG


def test_a_long_address_of_a_snapshot_is_left_out():
    assert read({"url": URL, "snapshot_url": LONG}).snapshot_url is None
    assert read({"url": URL, "snapshot_url": LONG, "diff_url": URL}).snapshot_url == URL


def test_of_a_long_id_the_beginning_is_kept():
    assert read({"url": URL, "uuid": "水" * 2_000}).watch_id == "水" * 255


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_a_time_that_means_none_is_now(moment: str) -> None:
    change = read({"url": URL, "timestamp": moment})
    assert (change.detected_at, change.dated) == (NOON, False)


def test_long_diffs_are_cut():
    summary = read({"url": URL, "diff": "x" * 1_000_000}).diff_summary
    assert summary
    assert len(summary) == 20_000


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"https://a.example had a change", b"[" * 100_000])
def test_what_is_no_json_is_said_so(body: bytes) -> None:
    with pytest.raises(UnreadableDelivery, match="is not JSON"):
        read(body)


@pytest.mark.parametrize(
    "body", [{}, [], "text", 7, None, {"url": None}, {"url": " "}, {"url": ["a"]}, envelope("It changed.")]
)
def test_what_names_no_page_is_said_so(body: Any) -> None:
    with pytest.raises(MalformedDelivery, match="watch_url"):
        read(body)


def test_notifications_of_one_change_are_identified_by_watch_and_time():
    dated = {"uuid": "w", "url": URL, "timestamp": "2026-01-31T11:00:00Z"}
    assert read(dated).identity == read(dated | {"diff": "rendered in another way"}).identity
    assert read(dated).identity != read(dated | {"timestamp": "2026-01-31T11:00:01Z"}).identity
    assert read(dated).identity != read(dated | {"uuid": "v"}).identity


def test_without_a_time_by_what_they_say():
    assert read({"url": URL, "diff": "a"}).identity == read({"url": URL, "diff": "a", "tag": "b"}).identity
    assert read({"url": URL, "diff": "a"}).identity != read({"url": URL, "diff": "b"}).identity
