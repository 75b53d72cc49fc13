"""The pages in a real browser: complete, quiet, readable for everybody, harmless whatever a site has sent."""

import asyncio
import socket
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import pytest
import uvicorn

from crawlscope.api.app import create_app
from crawlscope.core.vocabulary import PageState
from tests.api.http.conftest import SECRET, Service
from tests.support.browser import chromium, needs_chromium, signed_in_page
from tests.support.polling import eventually
from tests.support.producing import deliver, document, fail_pages, index_pages

pytestmark = needs_chromium

CRAWL = "a-crawl"
MARKUP = "</title></script><script>window.harmed=1</script><img src=x onerror='window.harmed=1'>"
EVIL_URL = "https://docs.example.com/'><img src=x onerror=window.harmed=1>"
TICKS_FIT = """() => {
    const axis = document.querySelector(".wf-head .wf-bars").getBoundingClientRect();
    const ticks = [...document.querySelectorAll(".wf-head text")].map((each) => each.getBoundingClientRect());
    const isFree = (tick, at) => tick.right <= (ticks[at + 1]?.left ?? axis.right + 1);
    return ticks.length > 1 && ticks.every(isFree);
}"""
EVERYWHERE = ["/", "/search", "/system", "/compare"]


@pytest.fixture
async def site(service: Service) -> AsyncIterator[str]:
    """The address of the application, served to the browser."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    stopping = asyncio.Event()
    app = create_app(service.parts, stopping)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stopping.set()
    server.should_exit = True
    await serving


def parts_of(crawl_id: str, *pages: str) -> list[str]:
    crawl = f"/crawls/{quote(crawl_id, safe='')}"
    below = [f"{crawl}/{part}" for part in ("timeline", "pages", "failures", "deliveries")]
    return [crawl, *below, *(f"{crawl}/page?{urlencode({'url': url})}" for url in pages)]


async def a_crawl(service: Service) -> None:
    database = service.parts.database
    await deliver(database, CRAWL, "crawl.started", metadata={"url": "https://docs.example.com/"})
    for number in range(12):
        await deliver(database, CRAWL, "crawl.page", [document(f"https://docs.example.com/{number}")])
    for number in range(3):
        gone = document(f"https://docs.example.com/gone/{number}", status_code=404)
        await deliver(database, CRAWL, "crawl.page", [gone])
    await index_pages(database, CRAWL)
    await deliver(database, CRAWL, "crawl.page", [document("https://docs.example.com/broken")])
    await fail_pages(database, CRAWL, "embedding_failed", "The embedder refused the text.")
    await deliver(database, CRAWL, "crawl.completed")


async def test_without_a_crawl(site: str):
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        for path in EVERYWHERE:
            await watched.examine(path)
        await watched.page.goto("/")
        assert await watched.page.is_visible("text=No crawl yet")
        await watched.page.fill("#start-url", "http://127.0.0.1/")
        await watched.page.click("text=Start crawl")
        await watched.page.wait_for_url("**/crawls/*")


async def test_with_a_crawl(site: str, service: Service):
    await a_crawl(service)
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        pages = ["https://docs.example.com/1", "https://docs.example.com/broken"]
        for path in ["/", "/compare?a=a-crawl", f"/compare?a={CRAWL}&b={CRAWL}", *parts_of(CRAWL, *pages)]:
            await watched.examine(path)
        await watched.page.goto(f"/crawls/{CRAWL}")
        assert await watched.page.locator(".uplot").count() == 3
        await watched.page.click("button:has-text('Retry 4 failed pages')")
        await watched.page.wait_for_url(f"**/crawls/{CRAWL}/failures")
        notice = await watched.page.inner_text(".notice")
        assert notice == "1 page queued again; 3 failed before any content was received."
        await watched.page.reload()
        assert await watched.page.locator(".notice").count() == 0


async def test_text_of_a_site_is_never_markup(site: str, service: Service):
    """Every field that a site or a sender can fill holds markup; none of it is run or becomes an element."""
    database, crawl_id = service.parts.database, f"{MARKUP}/1"
    for url, final_url, code in ((EVIL_URL, f"javascript:{MARKUP}", 200), (f"{EVIL_URL}2", EVIL_URL, 500)):
        page = document(url, final_url, code)
        page["markdown"] = MARKUP
        page["metadata"] |= {"title": MARKUP, "language": MARKUP, "error": MARKUP, "description": MARKUP}
        metadata = {"url": f"https://docs.example.com/{MARKUP}", MARKUP: MARKUP}
        await deliver(
            database, crawl_id, "crawl.page", [page], webhookId=f"{MARKUP}{code}", metadata=metadata
        )
    await fail_pages(database, crawl_id, MARKUP[:100], MARKUP)
    await deliver(database, crawl_id, "crawl.page", [document(f"{EVIL_URL}3")], error=MARKUP)
    await deliver(database, crawl_id, "crawl.failed", error=MARKUP)
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        shown = parts_of(crawl_id, EVIL_URL, f"{EVIL_URL}2")
        listed = await service.parts.insights.deliveries(crawl_id)
        shown += [f"{shown[4]}/{each.id}" for each in listed.deliveries]
        for path in [
            "/",
            "/system",
            f"/search?{urlencode({'q': MARKUP})}",
            f"/?{urlencode({'url': MARKUP})}",
            *shown,
        ]:
            await watched.page.goto(path)
            await watched.page.wait_for_load_state("networkidle") if path in shown[3:] else None
            assert await watched.page.evaluate("window.harmed") is None, path
            assert await watched.page.locator("img, a[href^='javascript']").count() == 0, path
        assert [fault for fault in watched.faults if "503" not in fault] == []  # search has no index here


async def test_without_javascript_everything_is_there(site: str, service: Service):
    await a_crawl(service)
    async with (
        chromium() as browser,
        signed_in_page(browser, site, SECRET, java_script_enabled=False) as watched,
    ):
        page = watched.page
        await page.goto(f"/crawls/{CRAWL}")
        assert (await page.inner_text(".foot")).endswith("Times are in UTC")
        assert await page.locator(".plot polyline").count() >= 5
        assert await page.locator(".stages tbody tr").count() >= 5
        await page.goto(f"/crawls/{CRAWL}/pages?sort=slowest")
        assert await page.locator(".spans-table tbody tr").count() == 16
        assert await page.locator(".spans-table rect.stage-embedding").count() >= 12
        await page.goto(f"/crawls/{CRAWL}/failures")
        assert await page.locator(".cause").count() == 2
        await page.click("text=Retry 1 page")
        assert "queued again" in await page.inner_text(".notice")
    states = {each.url: each.state for each in (await service.parts.insights.pages(CRAWL)).pages}
    assert states["https://docs.example.com/broken"] is PageState.QUEUED


async def test_the_waterfall_shows_all_pages_and_zooms(site: str, service: Service):
    database = service.parts.database
    for batch in range(0, 600, 100):
        documents = [document(f"https://docs.example.com/{number}") for number in range(batch, batch + 100)]
        await deliver(database, CRAWL, "crawl.page", documents)
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        page = watched.page
        await page.goto(f"/crawls/{CRAWL}/pages?sort=url")
        await page.wait_for_selector("text=/^\\/0$/")
        rows = page.locator(".wf-space .wf-row")
        assert await rows.count() < 100
        await page.evaluate("document.querySelector('.wf-scroll').scrollTop = 1e9")
        await page.wait_for_selector("text=/^\\/99$/")
        for width in (360, 1440, 760):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.wait_for_function(TICKS_FIT)
        await page.click("[aria-label='Zoom in']")
        await page.wait_for_function(TICKS_FIT)
        assert " to " in await page.inner_text(".wf-controls .sub")
        await page.keyboard.press("Tab")
        assert watched.faults == []


async def test_the_reference_of_the_api_needs_no_other_host(site: str):
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        await watched.page.goto("/docs")
        await watched.page.wait_for_selector(".opblock", timeout=60_000)
        assert await watched.page.locator(".opblock").count() > 30
        assert not watched.faults
