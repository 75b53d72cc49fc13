"""100,000 crawls and a crawl of 50,000 pages in a real browser, made by the product itself."""

import pytest
from benchmarks.dashboard_crawl import make_crawl, make_crawls

from tests.api.dashboard.test_browser import site
from tests.api.http.conftest import SECRET, Service
from tests.support.browser import chromium, needs_chromium, signed_in_page

pytestmark = [needs_chromium, pytest.mark.slow]
__all__ = ["site"]

CRAWLS = 100_000
PAGES = 50_000
MAX_WEIGHT_BYTES = 500_000


async def test_a_hundred_thousand_crawls(site: str, service: Service):
    await make_crawls(service.parts.database, CRAWLS)
    async with chromium() as browser, signed_in_page(browser, site, SECRET) as watched:
        for path in (
            "/",
            f"/?offset={CRAWLS - 25}",
            "/?status=completed&url=site-77.",
            "/compare",
            "/system",
        ):
            await watched.examine(path)
        await watched.page.goto("/?url=site-77.")
        assert await watched.page.inner_text("h1 .total") == "100"


async def test_a_crawl_of_fifty_thousand_pages(site: str, service: Service):
    database = service.parts.database
    await make_crawl(database, "large", PAGES)
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
            "/crawls/large/pages?state=failed&url=section-7",
            "/crawls/large/pages?sort=slowest",
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
