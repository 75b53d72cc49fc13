import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from crawlscope.core.errors import UsageError
from crawlscope.crawler import targets
from crawlscope.crawls.at_firecrawl import require_public_targets, trace_context
from crawlscope.crawls.requests import (
    MAX_OPTIONS_BYTES,
    OWN_KEYS,
    batch_request,
    crawl_request,
)
from crawlscope.crawls.schemas import MAX_BATCH_URLS
from crawlscope.firecrawl.schemas import JobKind

URL = "https://docs.example.com/start"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


def test_a_crawl_keeps_what_was_asked() -> None:
    request = crawl_request(f" {URL} ", 5, {"formats": ["links", "markdown"]}, {"includePaths": ["/a"]})
    assert (request.kind, request.url, request.limit) == (JobKind.CRAWL, URL, 5)
    assert request.scrape_options == {"formats": ["links", "markdown"]}
    assert request.crawl_options == {"includePaths": ["/a"]}


def test_empty_options_are_none() -> None:
    request = crawl_request(URL, None, {}, {})
    assert (request.scrape_options, request.crawl_options) == (None, None)


@pytest.mark.parametrize("key", sorted(OWN_KEYS))
def test_options_cannot_say_what_crawlscope_says(key: str) -> None:
    with pytest.raises(UsageError, match=rf"scrape_options: {key} cannot be given here"):
        batch_request([URL], {key: "x"})
    with pytest.raises(UsageError, match=rf"crawl_options: {key} cannot be given here"):
        crawl_request(URL, crawl_options={key: "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", ["\udfff"]])
def test_options_that_no_json_can_say(value: Any) -> None:
    with pytest.raises(UsageError, match="scrape_options: holds what JSON"):
        crawl_request(URL, scrape_options={"x": value})


def test_options_that_are_too_deep() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UsageError, match="too deep"):
        crawl_request(URL, scrape_options={"x": deep})


def test_options_are_measured_in_bytes() -> None:
    room = MAX_OPTIONS_BYTES - len(json.dumps({"x": ""}))
    assert crawl_request(URL, scrape_options={"x": "a" * room}).scrape_options
    for text in ("a" * (room + 1), "ü" * (room // 2 + 1)):
        with pytest.raises(UsageError, match="allowed"):
            crawl_request(URL, scrape_options={"x": text})


@pytest.mark.parametrize("formats", [["markdown"], [{"type": "markdown"}], "markdown", None])
def test_formats_with_markdown(formats: Any) -> None:
    assert crawl_request(URL, scrape_options={"formats": formats}).scrape_options


@pytest.mark.parametrize("formats", [[], ["html"], [{"type": "json", "prompt": "markdown"}]])
def test_formats_without_markdown_would_leave_nothing_to_index(formats: Any) -> None:
    with pytest.raises(UsageError, match="formats must contain"):
        crawl_request(URL, scrape_options={"formats": formats})


def test_a_batch_drops_repetitions_and_names_what_is_no_url() -> None:
    request = batch_request([URL, "nothing", f" {URL}", "ftp://a.example/", "nothing", "https://b.example/"])
    assert list(request.urls) == [URL, "https://b.example/"]
    assert list(request.invalid_urls) == ["nothing", "ftp://a.example/"]


@pytest.mark.parametrize("urls", [[], ["x"], [URL] * (MAX_BATCH_URLS + 1)])
def test_a_batch_of_nothing_or_too_much(urls: list[str]) -> None:
    with pytest.raises(UsageError, match="urls"):
        batch_request(urls)


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
        *("http://169.254.169.254\U000e0100/", "http://printer.local\ufe0f/", "http://127.0.0.1\u034f/"),
        *(
            "http://0x.0x.0x.0x/",
            "http://127.1.0x/",
            "http://127.1/",
            "http://017700000001/",
            "http://08.1.1.1/",
        ),
        *(
            "http://[::7f00:1]/",
            "http://[64:ff9b:1::7f00:1]/",
            "http://8.8.8.8 .example.com/",
            "http://⒎a.example/",
        ),
    ],
)
async def test_private_targets(url: str) -> None:
    with pytest.raises(UsageError, match="may not be crawled") as caught:
        await require_public_targets(crawl_request(url))
    assert "CRAWLSCOPE_ALLOW_PRIVATE_TARGETS" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("http://8.8.8.8/", "http://[2606:4700::1111]/", "http://u:p%40@1.1.1.1:81/", "http://134744072/"),
        *(
            "http://bücher.example/",
            "http://i❤️.example/",
            "http://a_b.example/",
            "http://xn--bcher-kva.example.",
        ),
    ],
)
async def test_public_targets(url: str) -> None:
    await require_public_targets(crawl_request(url))


class FakeNames:
    """The addresses of names, each lookup in a thread like the system's; names not in `known` have none."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.seconds_each = 0.0
        self.server_is_back = threading.Event()
        """The event that `slow` names wait for."""

    def look_up(self, host: str, port: int, *_: object, **__: object) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.server_is_back.wait(20)
        time.sleep(self.seconds_each)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.known[host]]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeNames]:
    """Async, so that it is over before the loop waits for its threads."""
    fake = FakeNames()
    monkeypatch.setattr(socket, "getaddrinfo", fake.look_up)
    monkeypatch.setattr(targets, "_LOOKUP_SECONDS", 0.2)
    yield fake
    fake.server_is_back.set()


SLOW = [f"https://slow{number}.example/" for number in range(64)]


async def test_a_name_with_any_private_address_is_private(names: FakeNames) -> None:
    names.known["mixed.example"] = ["8.8.8.8", "10.0.0.1"]
    with pytest.raises(UsageError, match=r"10\.0\.0\.1 is a private address"):
        await require_public_targets(batch_request(["https://other.example/", "https://mixed.example/a"]))


async def test_a_name_that_is_not_known_here_may_be_known_there(names: FakeNames) -> None:
    names.known["public.example"] = ["8.8.8.8"]
    await require_public_targets(batch_request(["https://public.example/", "https://unknown.example/"]))


async def test_a_name_without_a_dot_is_none_of_the_internet(names: FakeNames) -> None:
    names.known["database"] = ["8.8.8.8"]
    with pytest.raises(UsageError, match="database is not a name of the public internet"):
        await require_public_targets(crawl_request("http://database/"))


async def test_each_name_is_looked_up_once(names: FakeNames) -> None:
    names.known["a.example"] = ["8.8.8.8"]
    await require_public_targets(batch_request([f"https://a.example:{port}/" for port in range(1, 9)]))
    assert names.asked == ["a.example"]


@pytest.mark.parametrize("private", ["http://169.254.169.254/latest/meta-data", "http://localhost/"])
async def test_what_needs_no_lookup_waits_for_none(names: FakeNames, private: str) -> None:
    with pytest.raises(UsageError, match=r"169\.254\.169\.254|localhost"):
        await require_public_targets(batch_request([*SLOW, private]))
    assert names.asked == []


async def test_a_name_that_takes_too_long_is_refused(names: FakeNames) -> None:
    with pytest.raises(UsageError, match=r"slow\d+\.example could not be resolved within 0\.2 s"):
        await require_public_targets(batch_request(SLOW[:1]))


async def test_a_name_behind_many_others_gets_its_time_too(
    names: FakeNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_LOOKUP_SECONDS", 1.0)  # all together take longer
    names.seconds_each = 0.05
    names.known["last.example"] = ["10.0.0.1"]
    others = [f"https://{number}.example/" for number in range(100)]
    with pytest.raises(UsageError, match=r"10\.0\.0\.1 is a private address"):
        await require_public_targets(batch_request([*others, "https://last.example/"]))
    assert len(names.asked) == 101


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
