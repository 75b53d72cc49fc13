"""A page that is followed live: one connection, one rendering for all viewers, no request besides."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import Response
from playwright.async_api import Page, Request

from crawlscope.api.dashboard import crawl, live_pages, rendering
from crawlscope.api.dashboard.rendering import render
from tests.api.dashboard.test_browser import site
from tests.api.http.conftest import SECRET, Service
from tests.insights.test_live import LONG_AGO, delete, fail_at_crawler, urls
from tests.support.browser import Watched, chromium, needs_chromium, signed_in_page
from tests.support.producing import deliver

__all__ = ["site"]
FEED = {"Accept": "text/event-stream"}
PATH = "/crawls/crawl-1"
COUNTS_FEEDS = """
window.feeds = [];
window.EventSource = class extends EventSource {
  constructor(address) { super(address); feeds.push(this); }
};
window.show = (hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""


@pytest.fixture(autouse=True)
def refreshes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_pages, "REFRESH_SECONDS", 0.3)


@asynccontextmanager
async def followed_page(http: httpx2.AsyncClient, path: str = PATH) -> AsyncIterator[AsyncIterator[str]]:
    """The pages that the feed brings."""
    async with http.stream("GET", path, headers=FEED) as answer:
        assert answer.status_code == 200

        async def pages() -> AsyncIterator[str]:
            name, lines = "", list[str]()
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data" and name == "page":
                    lines.append(value)
                elif not field and lines:
                    yield "\n".join(lines)
                    lines = []

        yield pages()


async def test_a_page_is_rendered_once_for_all_its_viewers(
    site: str, service: Service, monkeypatch: pytest.MonkeyPatch
):
    database, rendered = service.parts.database, list[str]()
    monkeypatch.setattr(crawl, "render", _counting(render, rendered))
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=site, timeout=60))
        http.headers["X-API-Secret"] = SECRET
        viewers = [await stack.enter_async_context(followed_page(http)) for _ in range(20)]
        await fail_at_crawler(database, "crawl-1", urls(0, 3))
        await deliver(database, "crawl-1", "crawl.completed", at=LONG_AGO)
        async with asyncio.timeout(60):
            seen = await asyncio.gather(*map(_all, viewers))
    longest = max(seen, key=len)
    assert all(pages == longest[-len(pages) :] for pages in seen)  # each has what came after it began
    assert len(rendered) == len(longest)
    assert "data-followed" not in longest[-1]
    assert ">sealed<" in longest[-1]


async def test_a_page_that_cannot_be_rendered_is_tried_again_although_nothing_changes(
    site: str, service: Service, monkeypatch: pytest.MonkeyPatch
):
    failures = iter([RuntimeError("once"), RuntimeError("twice")])

    def render_later(*given: Any, **values: Any) -> Any:
        for failure in failures:
            raise failure
        return render(*given, **values)

    await deliver(service.parts.database, "crawl-1", "crawl.started", at=LONG_AGO)
    monkeypatch.setattr(crawl, "render", render_later)
    async with (
        asyncio.timeout(60),
        httpx2.AsyncClient(base_url=site, timeout=60, headers={"X-API-Secret": SECRET}) as http,
        followed_page(http) as pages,
    ):
        assert "data-followed" in await anext(pages)
    assert next(failures, None) is None


async def test_a_browser_with_the_page_that_was_opened_longest_ago_goes_back_to_asking_for_it(
    site: str, service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_pages, "MAX_PAGES", 2)
    await deliver(service.parts.database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=site, timeout=60))
        http.headers.update({"X-API-Secret": SECRET, **FEED})
        feeds = [
            (await stack.enter_async_context(http.stream("GET", path))).aiter_lines()
            for path in (PATH, f"{PATH}/pages", f"{PATH}/failures")
        ]
        async with asyncio.timeout(30):
            first = [line async for line in feeds[0]]  # it ends
            others = [await anext(feed) for feed in feeds[1:]]
    assert first[-3:-1] == ["event: page_unfollowed", "data: too many pages are followed"]
    assert "unfollowed" not in "".join(others)


async def test_a_followed_waterfall_brings_its_first_rows(site: str, service: Service):
    database = service.parts.database
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with httpx2.AsyncClient(base_url=site, timeout=60, headers={"X-API-Secret": SECRET}) as http:
        async with asyncio.timeout(30), followed_page(http, f"{PATH}/pages") as pages:
            await fail_at_crawler(database, "crawl-1", urls(0, 3))
            page = await anext(pages)
            while "data-first-rows" not in page:
                page = await anext(pages)
        asked = (await http.get(f"{PATH}/spans", params={"limit": 200})).json()["rows"]
    assert json.loads(page.partition("data-first-rows>")[2].partition("</script>")[0]) == asked


async def test_an_answer_that_takes_long_is_made_once_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "SHARED_SECONDS", 0.0)
    shared, made, may_end = rendering.SharedAnswers(), list[int](), asyncio.Event()

    async def make() -> Response:
        made.append(1)
        await may_end.wait()
        return Response("rows")

    waiting = [asyncio.create_task(shared.get("/spans", make)) for _ in range(3)]
    await asyncio.sleep(0.01)
    may_end.set()
    assert [answer.body for answer in await asyncio.gather(*waiting)] == [b"rows"] * 3
    assert len(made) == 1


@needs_chromium
async def test_a_browser_asks_only_for_the_rows_that_it_shows(site: str, service: Service):
    """`benchmarks/viewers.py` plays a browser by this."""
    database = service.parts.database
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        feed = {f"eventsource {site}{PATH}"}
        assert await _requests(watched, service, PATH, "[data-live=total]:text-is('2')") == feed
        rows = {f"fetch {site}{PATH}/spans?limit=200&offset=0"}
        feed = {f"eventsource {site}{PATH}/pages"}
        shown = await _requests(watched, service, f"{PATH}/pages", ".badge.plain:text-is('4')")
        assert shown == feed | rows
        shown = await _requests(watched, service, "/", "[data-live=pages]:text-is('6 pages')")
        assert shown == {f"eventsource {site}/"}
        assert watched.faults == []


@asynccontextmanager
async def page_that_counts_feeds(site: str, service: Service) -> AsyncIterator[Page]:
    """A browser's page that shows nothing yet, beside a crawl that has begun."""
    await deliver(service.parts.database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        await watched.page.add_init_script(COUNTS_FEEDS)
        yield watched.page


@needs_chromium
async def test_a_page_that_is_hidden_and_shown_again_has_one_feed(site: str, service: Service):
    async with page_that_counts_feeds(site, service) as page:
        await page.goto(PATH)
        await page.wait_for_function("() => feeds.length === 1")
        await page.evaluate("[true, false, true, false].forEach(show)")
        await page.wait_for_function("() => feeds.length === 3")
        assert (
            await page.evaluate("feeds.filter((each) => each.readyState !== EventSource.CLOSED).length") == 1
        )


@needs_chromium
async def test_a_page_says_why_it_is_not_followed_and_follows_again(site: str, service: Service):
    shown_again = "show(true); show(false)"
    async with page_that_counts_feeds(site, service) as page:
        await page.clock.install()
        await page.goto(PATH)
        await page.wait_for_function("() => feeds.length === 1 && feeds[0].readyState === EventSource.OPEN")
        no_service, no_network = lambda route: route.fulfill(status=502), lambda route: route.abort()
        for answer in (no_service, no_network):
            await page.route(f"**{PATH}", answer)
            await page.evaluate(shown_again)
            await page.wait_for_selector(".connection:has-text('No connection to the service since')")
            await page.unroute(f"**{PATH}")
            before = await page.evaluate("feeds.length")
            await page.clock.run_for(10_000)
            await page.wait_for_function(f"() => feeds[{before}]?.readyState === EventSource.OPEN")
            assert await page.inner_text(".connection") == ""
        cookies = await page.context.cookies()
        await page.context.clear_cookies()
        await page.evaluate(shown_again)
        await page.wait_for_selector(".connection a[href='/sign-in?next=%2Fcrawls%2Fcrawl-1']")
        await page.context.add_cookies(cookies)  # type: ignore[arg-type]  # as it gave them
        await page.evaluate(shown_again)
        await page.wait_for_function("() => feeds.at(-1).readyState === EventSource.OPEN")
        await delete(service.parts.database, "crawl-1")
        await page.wait_for_selector(".connection:has-text('This crawl was deleted.')")


@needs_chromium
async def test_only_the_service_decides_whether_it_is_gone_which_is_said_once(site: str, service: Service):
    async with page_that_counts_feeds(site, service) as page:
        await page.goto(PATH)
        await page.wait_for_function("() => feeds.length === 1 && feeds[0].readyState === EventSource.OPEN")
        await page.evaluate("dispatchEvent(new Event('offline'))")
        await page.wait_for_function("() => feeds[1]?.readyState === EventSource.OPEN", timeout=5_000)
        assert await page.inner_text(".connection") == ""
        await page.route(f"**{PATH}", lambda route: route.abort())
        await page.evaluate("dispatchEvent(new Event('offline'))")
        said = await page.wait_for_selector(".connection:has-text('No connection to the service since')")
        assert said
        words = await said.evaluate_handle("(note) => note.firstChild")
        await page.evaluate("dispatchEvent(new Event('offline')); fetch(location.href).catch(() => null)")
        assert await words.evaluate("(node) => node.isConnected")


async def test_only_who_is_signed_in_follows_a_crawl_that_is_known(site: str):
    async with httpx2.AsyncClient(base_url=site, headers=FEED, timeout=60) as http:
        assert [(await http.get(path)).status_code for path in (PATH, "/", "/sign-in")] == [401, 303, 401]
        assert (await http.get(PATH, headers={"X-API-Secret": SECRET})).status_code == 404


async def _requests(watched: Watched, service: Service, path: str, until: str) -> set[str]:
    """The requests of the page's scripts while two more pages of its crawl fail, and it shows them."""
    page, asked = watched.page, set[str]()

    def note(request: Request) -> None:
        if request.resource_type in ("eventsource", "fetch", "xhr"):
            asked.add(f"{request.resource_type} {request.url}")

    await page.goto("/system")  # of the page before, nothing more is asked for
    page.on("request", note)
    await page.goto(path)
    number = 2 * [PATH, f"{PATH}/pages", "/"].index(path)
    await fail_at_crawler(service.parts.database, "crawl-1", urls(number, number + 2))
    await page.wait_for_selector(until)
    await page.wait_for_timeout(500)
    page.remove_listener("request", note)
    return asked


def _counting(made_by: Any, rendered: list[str]) -> Any:
    def render_and_count(*given: Any, **values: Any) -> Any:
        rendered.append(given[1])
        return made_by(*given, **values)

    return render_and_count


async def _all(pages: AsyncIterator[str]) -> list[str]:
    return [page async for page in pages]
