"""A person's way through the dashboard: from the printed link to a searchable site, in a real browser."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Watched, chromium, needs_chromium
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.website import Page, Website, html
from tests.support.stack import Stack, log_of, running_stack

pytestmark = needs_chromium

PAGES = 14


@pytest.fixture(scope="module")
def embedder() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as server:
        yield server


@pytest.fixture(scope="module")
def own_stack(embedder: FakeEmbeddingServer) -> Iterator[Stack]:
    """May crawl this machine from the browser."""
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-dashboard-") as folder,
        running_stack(
            Path(folder) / "data",
            WORKERS="1",
            ALLOW_PRIVATE_TARGETS="true",
            EMBEDDER="tei",
            EMBEDDER_URL=embedder.url,
        ) as stack,
    ):
        yield stack


def a_site() -> Website:
    names = [f"/page-{number}" for number in range(PAGES)]
    pages = {name: html(f"<p>Otters float past stone {name}.</p>", title=f"Otter {name}") for name in names}
    start = html("<p>A river with otters.</p>", title="River", links=[*names, "/gone"])
    return Website({"/": start, **pages})


async def test_from_the_link_to_a_searchable_site(own_stack: Stack, embedder: FakeEmbeddingServer):
    embedder.refuses = "stone /page-7"
    async with chromium() as browser:
        context = await browser.new_context(base_url=own_stack.url, viewport={"width": 1440, "height": 900})
        watched = Watched(await context.new_page(), own_stack.url)
        page = watched.page
        [link] = re.findall(r"http\S+/sign-in\?token=\S+", log_of(own_stack.data_dir).read_text())
        await page.goto(link)
        await page.wait_for_url(f"{own_stack.url}/")  # the script sends the form

        with a_site() as site:
            first = await _crawl(watched, site)
            await page.click("nav >> text=Pages")
            await page.wait_for_selector(".wf-space .stage-embedding", state="attached")
            assert await page.locator(".wf-space .stage-embedding").count() >= PAGES - 2
            await page.click("nav >> text=Failures")
            codes = await page.locator(".cause code").all_inner_texts()
            assert sorted(codes) == sorted({"http_404", *codes})
            assert len(codes) == 2
            embedder.refuses = None
            await page.click("section:not([aria-label='http_404']) >> button:has-text('Retry')")
            assert await page.inner_text(".notice") == "1 page queued again."
            own_stack.settled(first)
            await page.goto(f"/crawls/{first}/page?url={site.url}/page-7")
            assert await page.locator("[aria-labelledby=attempts] tbody tr").count() == 2
            assert "stone /page-7" in await page.inner_text(".chunks")

            site.pages["/page-2"] = html("<p>Herons stand at stone /page-2 now.</p>", title="Otter /page-2")
            site.pages["/page-3"] = Page("gone", status=410)
            second = await _crawl(watched, site)

        await page.click("text=Compare >> nth=1")
        await page.click(f"a[href*='b={first}']")
        assert await page.locator("section[aria-labelledby=stages] tbody tr").count() >= 5
        await page.click("text='/page-2'")
        assert "Herons" in await page.inner_text(".line-added")
        assert "Otters" in await page.inner_text(".line-removed")

        await page.fill(".top-search input", '"herons stand" at stone')
        await page.press(".top-search input", "Enter")
        await page.wait_for_selector(".hit")
        assert "page-2" in await page.inner_text(".hit >> nth=0")
        assert await page.locator(".hit mark").count() >= 1
        await page.goto("/system")
        assert await page.locator(".chip-failed").count() == 0
        assert own_stack.crawl(second)["sealed"]
        assert watched.faults == []


async def _crawl(watched: Watched, site: Website) -> str:
    """Starts a crawl in the browser and watches it, without a reload, until it is searchable."""
    page = watched.page
    await page.goto("/")
    if await page.locator("summary:has-text('New crawl')").count():
        await page.click("summary:has-text('New crawl')")
    await page.fill("#start-url", f"{site.url}/")
    await page.click("text=Start crawl")
    await page.wait_for_url("**/crawls/*")
    await page.evaluate("window.unchanged = true")
    await page.wait_for_selector(".status-line >> text=sealed", timeout=240_000)
    await page.wait_for_selector(".uplot")
    assert await page.evaluate("window.unchanged"), "the page was loaded again"
    assert await page.inner_text("[data-live=total]") == str(PAGES + 2)
    return page.url.rsplit("/", 1)[1]
