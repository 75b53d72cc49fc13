import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from crawlscope.crawler.crawl import CrawlProgress
from crawlscope.crawler.pace import Clock, Pace
from tests.crawler.harness import FastClock, crawl
from tests.support.fakes.website import Page, Website, html


class Limited(Website):
    """Takes `most` requests a second of the crawl's clock, and refuses more in the way of `refusal`."""

    def __init__(self, pages: dict[str, Page], clock: FastClock, refusal: Page, most: int = 5) -> None:
        super().__init__(pages)
        self.clock, self.refusal, self.most = clock, refusal, most
        self.taken: list[float] = []
        self.refused = 0

    def page_for(self, path: str) -> Page:
        page = super().page_for(path)
        if path not in self.pages:
            return page
        now = self.clock.time
        if sum(now - taken < 1 for taken in self.taken) >= self.most:
            self.refused += 1
            return self.refusal
        self.taken.append(now)
        return page


@pytest.mark.parametrize(
    "refusal",
    [
        Page("slow down", status=429, headers={"Retry-After": "1"}),
        Page("slow down", status=429),
        Page("slow down", status=429, headers={"Retry-After": "soon"}),
        Page("busy", status=503, headers={"Retry-After": "1"}),
        Page("busy", status=503),
    ],
)
async def test_a_site_that_limits_requests_is_crawled_whole(refusal: Page) -> None:
    clock = FastClock()
    pages = {f"/p{number}": html(f"Text of page {number}") for number in range(40)}
    with Limited({"/": html(links=pages), **pages}, clock, refusal) as site:
        crawled = await crawl(site.url, clock=clock)
        assert site.refused < 30, "the whole crawl slows down"
    assert {crawled.metadata(path)["statusCode"] for path in pages} == {200}
    assert len(crawled.pages) == 41


async def test_a_page_that_stays_refused_is_delivered_with_its_status() -> None:
    clock = FastClock()
    busy = Page("<h1>Too many</h1>", status=429, headers={"Retry-After": "2"})
    with Website({"/": html(links=["/busy", "/a"]), "/busy": busy, "/a": html()}) as site:
        crawled = await crawl(site.url, clock=clock)
        assert site.requests.count("/busy") == 8
    assert crawled.metadata("/busy")["statusCode"] == 429
    assert crawled.metadata("/a")["statusCode"] == 200
    assert 14 <= clock.time < 20


async def test_the_times_of_a_crawl_tell_a_site_that_limits_requests_from_one_that_does_not() -> None:
    seen: list[CrawlProgress] = []
    pages = {f"/p{number}": html(f"Text of page {number}") for number in range(9)}
    with Website({"/": html(links=pages), **pages}) as site:
        await crawl(site.url, on_progress=seen.append)
    free = replace(seen[-1].times)
    with Website({"/": html(links=pages), **pages}, robots="User-agent: *\nCrawl-delay: 2") as site:
        await crawl(site.url, on_progress=seen.append)
    polite = replace(seen[-1].times)
    clock = FastClock()
    with Limited({"/": html(links=pages), **pages}, clock, Page(status=429)) as site:
        await crawl(site.url, on_progress=seen.append, clock=clock)
    limited = seen[-1].times

    assert (free.requests, free.refusals, free.delay_ms) == (12, 0, 0.0)  # with robots.txt and a sitemap
    assert polite.refusals == 0
    assert polite.delay_ms >= 2_000 * len(pages)
    assert limited.refusals == site.refused > 0
    assert limited.requests == free.requests + site.refused
    assert limited.delay_ms > 1_000


async def test_errors_that_pass_do_no_harm() -> None:
    class Shaky(Website):
        def page_for(self, path: str) -> Page:
            page = super().page_for(path)
            self.pages[path] = later.get(path, page)
            return page

    statuses = [408, 500, 502, 503, 504]
    later = {f"/{status}": html(f"at last {status}") for status in statuses}
    first = {path: Page(status=int(path[1:])) for path in later}
    with Shaky({"/": html(links=first), **first}) as site:
        crawled = await crawl(site.url)
    assert {crawled.metadata(path)["statusCode"] for path in later} == {200}


async def test_a_host_that_asks_for_an_hour_is_left_alone() -> None:
    clock = FastClock()
    busy = Page(status=429, headers={"Retry-After": "3600"})
    pages = {f"/{number}": busy for number in range(20)}
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url, clock=clock, concurrency=2)
        assert len(site.requests) <= 1 + 2 + 1, "only what was on its way asks"
    assert clock.time < 10
    assert crawled.metadata("/0")["statusCode"] == 429
    error: Any = crawled.pages["/19"]["error"]
    assert error["code"] == "http_429"
    assert "answered 429 and asks for no request for 3600 seconds more" in error["message"]
    assert crawled.types[-1] == "crawl.completed"


async def test_a_page_with_trouble_of_its_own_does_not_keep_the_others() -> None:
    clock = FastClock()
    down = Page(status=503, headers={"Retry-After": "3600"})
    shaky = Page(status=503, headers={"Retry-After": "100"})
    pages = {f"/{number}": html(f"page {number}") for number in range(20)}
    odd = {"/down": down, "/shaky": shaky}
    with Website({"/": html(links=[*odd, *pages]), **odd, **pages}) as site:
        crawled = await crawl(site.url, clock=clock, concurrency=2)
        assert (site.requests.count("/down"), site.requests.count("/shaky")) == (1, 4)
    assert {crawled.metadata(path)["statusCode"] for path in pages} == {200}
    assert crawled.metadata("/down")["statusCode"] == 503
    assert clock.time < 600


async def test_a_host_that_refuses_everything_ends_the_crawl() -> None:
    clock = FastClock()
    pages = {f"/{number}": Page(status=429) for number in range(200)}
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url, clock=clock)
        assert len(site.requests) < 300
    assert len(crawled.pages) == 201
    assert clock.time < 2_000


@pytest.mark.parametrize("status", [429, 503])
async def test_a_robots_txt_that_is_refused_is_asked_for_again(status: int) -> None:
    class Busy(Website):
        def page_for(self, path: str) -> Page:
            page = super().page_for(path)
            if path == "/robots.txt":
                self.pages[path] = Page("User-agent: *\nDisallow: /a")
            return page

    with Busy({"/": html(links=["/a"]), "/a": html()}, robots=Page(status=status)) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/"}


async def test_a_crawl_that_waits_can_be_stopped() -> None:
    busy = Page(status=429, headers={"Retry-After": "200"})
    with Website({"/": html(links=["/busy"]), "/busy": busy}) as site:

        async def when_it_waits() -> bool:
            return "/busy" in site.requests

        crawled = await asyncio.wait_for(crawl(site.url, should_stop=when_it_waits, clock=Clock()), 10)
    assert set(crawled.pages) == {"/"}
    assert crawled.types[-1] == "crawl.cancelled"


def pace(clock: FastClock, delay_seconds: float = 0.0) -> Pace:
    return Pace("host.example", clock, asyncio.Event(), delay_seconds)


async def ask(pace: Pace) -> float:
    async with pace.turn() as at:
        return at


async def test_a_pace_slows_down_by_refusals_and_speeds_up_by_answers() -> None:
    clock = FastClock()
    steps = pace(clock)
    assert [await ask(steps) for _ in range(3)] == [0, 0, 0]
    for _ in range(3):  # one burst
        steps.refused(0.0, 429, 1.0)
    assert [await ask(steps) for _ in range(3)] == pytest.approx([1.0, 1.1, 1.2])
    steps.refused(clock.now(), 429, 1.0)
    first, second = await ask(steps), await ask(steps)
    assert second - first == pytest.approx(0.2)
    for _ in range(60):
        steps.answered()
    first, second, third = await ask(steps), await ask(steps), await ask(steps)
    assert second == third


async def test_a_pace_never_falls_below_the_crawl_delay() -> None:
    clock = FastClock()
    steps = pace(clock, delay_seconds=2.0)
    steps.refused(0.0, 503, 0.0)
    for _ in range(100):
        steps.answered()
    assert [await ask(steps) for _ in range(3)] == [0, 2, 4]


async def test_an_http_date_sets_the_time_of_the_retry() -> None:
    clock = FastClock()
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    class Once(Website):
        def page_for(self, path: str) -> Page:
            page = super().page_for(path)
            if path == "/busy":
                self.pages[path] = html("at last")
            return page

    busy = Page(status=503, headers={"Retry-After": soon})
    with Once({"/": html(links=["/busy"]), "/busy": busy}) as site:
        crawled = await crawl(site.url, clock=clock)
    assert crawled.metadata("/busy")["statusCode"] == 200
    assert 80 < clock.time <= 101
