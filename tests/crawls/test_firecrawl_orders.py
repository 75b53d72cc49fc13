import json
import re
import socket
from typing import Any

import httpcore2
import pytest

from crawlscope.crawler import targets
from crawlscope.crawls.firecrawl_orders import (
    LARGEST_OPTIONS_BYTES,
    MOST_URLS,
    OWN_KEYS,
    batch_order,
    crawl_order,
    require_public_targets,
)
from crawlscope.crawls.trace_context import trace_context
from crawlscope.errors import UsageError
from crawlscope.firecrawl.answers import JobKind

URL = "https://docs.example.com/start"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


def test_a_crawl_keeps_what_was_asked() -> None:
    order = crawl_order(f" {URL} ", 5, {"formats": ["links", "markdown"]}, {"includePaths": ["/a"]})
    assert (order.kind, order.url, order.limit) == (JobKind.CRAWL, URL, 5)
    assert order.scrape_options == {"formats": ["links", "markdown"]}
    assert order.crawl_options == {"includePaths": ["/a"]}


def test_empty_options_are_none() -> None:
    order = crawl_order(URL, None, {}, {})
    assert (order.scrape_options, order.crawl_options) == (None, None)


@pytest.mark.parametrize("key", sorted(OWN_KEYS))
def test_options_cannot_say_what_crawlscope_says(key: str) -> None:
    with pytest.raises(UsageError, match=rf"scrape_options: {key} cannot be given here"):
        batch_order([URL], {key: "x"})
    with pytest.raises(UsageError, match=rf"crawl_options: {key} cannot be given here"):
        crawl_order(URL, crawl_options={key: "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", ["\udfff"]])
def test_options_that_no_json_can_say(value: Any) -> None:
    with pytest.raises(UsageError, match="scrape_options: holds what JSON"):
        crawl_order(URL, scrape_options={"x": value})


def test_options_that_are_too_deep() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UsageError, match="too deep"):
        crawl_order(URL, scrape_options={"x": deep})


def test_options_are_measured_in_bytes() -> None:
    room = LARGEST_OPTIONS_BYTES - len(json.dumps({"x": ""}))
    assert crawl_order(URL, scrape_options={"x": "a" * room}).scrape_options
    for text in ("a" * (room + 1), "ü" * (room // 2 + 1)):
        with pytest.raises(UsageError, match="allowed"):
            crawl_order(URL, scrape_options={"x": text})


@pytest.mark.parametrize("formats", [["markdown"], [{"type": "markdown"}], "markdown", None])
def test_formats_with_markdown(formats: Any) -> None:
    assert crawl_order(URL, scrape_options={"formats": formats}).scrape_options


@pytest.mark.parametrize("formats", [[], ["html"], [{"type": "json", "prompt": "markdown"}]])
def test_formats_without_markdown_would_leave_nothing_to_index(formats: Any) -> None:
    with pytest.raises(UsageError, match="formats must contain"):
        crawl_order(URL, scrape_options={"formats": formats})


def test_a_batch_drops_repetitions_and_names_what_is_no_url() -> None:
    order = batch_order([URL, "nothing", f" {URL}", "ftp://a.example/", "nothing", "https://b.example/"])
    assert list(order.urls) == [URL, "https://b.example/"]
    assert list(order.invalid_urls) == ["nothing", "ftp://a.example/"]


@pytest.mark.parametrize("urls", [[], ["x"], [URL] * (MOST_URLS + 1)])
def test_a_batch_of_nothing_or_too_much(urls: list[str]) -> None:
    with pytest.raises(UsageError, match="urls"):
        batch_order(urls)


@pytest.mark.parametrize(
    "url",
    [
        *("http://10.0.0.1/", "http://169.254.169.254/latest", "http://[fd00::1]/", "http://0x7f.0.0.1/"),
        *(
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1%25eth0]/",
            "http://localhost./",
            "http://LOCALHOST/",
        ),
        *("http://printer/", "http://printer.local/", "http://a.b.internal./", "http://x.localhost/"),
        *(
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http://a:b@127.0.0.1/",
            "http://a.example\\@b.example/",
        ),
    ],
)
async def test_private_targets(url: str) -> None:
    with pytest.raises(UsageError, match="may not be crawled") as caught:
        await require_public_targets(crawl_order(url))
    assert "CRAWLSCOPE_ALLOW_PRIVATE_TARGETS" in str(caught.value)


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "http://[2606:4700::1111]/", "http://u:p%40@1.1.1.1:81/"])
async def test_public_targets(url: str) -> None:
    await require_public_targets(crawl_order(url))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to; none leads anywhere else."""
    known: dict[str, list[str]] = {}

    async def resolve(host: str, port: int, timeout: float | None) -> list[str]:
        if host not in known:
            raise httpcore2.ConnectError("Name or service not known")
        return known[host]

    monkeypatch.setattr(targets, "_resolve", resolve)
    return known


async def test_a_name_with_any_private_address_is_private(names: dict[str, list[str]]) -> None:
    names["mixed.example"] = ["8.8.8.8", "10.0.0.1"]
    with pytest.raises(UsageError, match=r"10\.0\.0\.1 is a private address"):
        await require_public_targets(batch_order(["https://other.example/", "https://mixed.example/a"]))


async def test_a_name_that_is_not_known_here_may_be_known_there(names: dict[str, list[str]]) -> None:
    names["public.example"] = ["8.8.8.8"]
    await require_public_targets(batch_order(["https://public.example/", "https://unknown.example/"]))


async def test_this_machines_own_name_is_looked_up(names: dict[str, list[str]]) -> None:
    names[socket.gethostname()] = ["127.0.0.1"]
    with pytest.raises(UsageError):
        await require_public_targets(crawl_order(f"http://{socket.gethostname()}/"))


@pytest.mark.parametrize(
    "given", [f"00-{TRACE}-01", f"00-{TRACE}-00", f"01-{TRACE}-03", f"cc-{TRACE}-01-more"]
)
def test_a_valid_trace_context_is_passed_on(given: str) -> None:
    assert trace_context(given) == given


@pytest.mark.parametrize(
    "given",
    [
        *(None, "", "nonsense", f"ff-{TRACE}-01", f"00-{TRACE}-01-more", f"00-{TRACE.upper()}-01"),
        *(f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE[:32]}-{'0' * 16}-01", f"00-{TRACE}-1"),
        *(f"00-{TRACE}-01\r\nX: 1", f"01-{TRACE}-01-" + "x" * 1000),
    ],
)
def test_any_other_is_replaced(given: str | None) -> None:
    made = trace_context(given)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", made)
    assert made not in (given, trace_context(given))
