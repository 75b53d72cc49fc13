"""Ten thousand crawls and a crawl of fifty thousand pages in a real browser, made by the product itself."""

import pytest

from tests.api.dashboard.test_browser import site
from tests.api.http.conftest import SECRET, Service
from tests.support.browser import chromium, needs_chromium, signed_in_page
from tests.support.producing import deliver, document, index_all_pages

pytestmark = [needs_chromium, pytest.mark.slow]
__all__ = ["site"]

CRAWLS = 10_000
PAGES = 50_000
MAX_WEIGHT_BYTES = 500_000


async def test_ten_thousand_crawls(site: str, service: Service):
    database = service.parts.database
    for number in range(CRAWLS):
        url = f"https://site-{number % 500}.example/"
        await deliver(database, f"crawl-{number}", "crawl.completed", metadata={"url": url})
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        for path in ("/", "/?offset=9975", "/?status=completed&url=site-77", "/compare", "/system"):
            await watched.examine(path)
        await watched.page.goto("/?url=site-77")
        assert await watched.page.inner_text("h1 .total") == "20"


async def test_a_crawl_of_fifty_thousand_pages(site: str, service: Service):
    database = service.parts.database
    for first in range(0, PAGES, 500):
        urls = [
            f"https://docs.example.com/section-{number % 97}/{number}" for number in range(first, first + 500)
        ]
        await deliver(database, "large", "crawl.page", [document(url) for url in urls])
    await deliver(database, "large", "crawl.completed", metadata={"url": "https://docs.example.com/"})
    assert await index_all_pages(database, "large") == PAGES
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        page, weights = watched.page, {}
        page.on(
            "response", lambda answer: weights.update({answer.url: answer.headers.get("content-length", 0)})
        )
        for path in (
            "/",
            "/crawls/large",
            "/crawls/large/timeline",
            "/crawls/large/pages",
            "/crawls/large/failures",
        ):
            await watched.examine(path)
            assert sum(map(int, weights.values())) <= MAX_WEIGHT_BYTES, weights
            weights.clear()
        await page.goto("/crawls/large/pages?sort=url")
        for share in (0.5, 1.0, 0.25):
            await page.evaluate(f"document.querySelector('.wf-scroll').scrollTop = {share} * {PAGES} * 26")
            await page.wait_for_selector(".wf-space a:text-is('…')", state="detached")
        assert await page.locator(".wf-space .wf-row").count() < 120
        assert watched.faults == []
