"""The cost of a large crawl and of many crawls in the dashboard: on the server, in the browser.

    python -m benchmarks.dashboard [--quick] [--pages N] [--rounds N] [--json FILE]

Takes seven minutes at most, of which five make a crawl of 50,000 pages and 100,000 other crawls, or as many
as fit into the time, by the steps of deliveries and workers; the service has no workers. A frame is measured
in Chromium, headless and without a graphics card, while the list scrolls by eleven rows a frame: all
processor time of the page's main thread.
"""

import asyncio
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import uvicorn
from playwright.async_api import CDPSession, Page, async_playwright

from benchmarks.dashboard_crawl import make_crawl, make_crawls
from benchmarks.part import Options, Row, number, run_alone
from crawlscope.api.app import create_app
from crawlscope.core.settings import Settings
from crawlscope.database import schema
from crawlscope.database.connect import connected_database
from crawlscope.processes.parts import service_parts

PART = "dashboard"
SECRET = "a-secret-of-this-benchmark"
CRAWL, SMALL, LATEST = "large", "small", "latest"
SMALL_PAGES = 50
CRAWLS, QUICK_CRAWLS = 100_000, 2_000
PAGES_SECONDS, CRAWLS_SECONDS = 90.0, 240.0
MAX_SERVER_MS = 100.0
MAX_WEIGHT_KB = 500.0
MAX_FRAME_MS = 16.0
MAX_SHIFT = 0.1
"""The layout shift that browsers call good, of 1."""
FRAMES = 120
SCROLL_PIXELS = 286
CHROMIUM = shutil.which("chromium")


async def measure(options: Options) -> Sequence[Row]:
    pages, rounds = options.pages_or(50_000, 2_000), options.rounds_or(30)
    crawls = QUICK_CRAWLS if options.quick else CRAWLS
    with tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder:
        async with _served(Path(folder)) as (url, settings):
            async with connected_database(settings) as database:
                await make_crawl(database, SMALL, SMALL_PAGES)
                pages = await make_crawl(database, CRAWL, pages, PAGES_SECONDS)
                crawls = await make_crawls(database, crawls, CRAWLS_SECONDS)
                await make_crawl(database, LATEST, SMALL_PAGES)
            async with httpx2.AsyncClient(
                base_url=url, headers={"X-API-Secret": SECRET}, timeout=120
            ) as client:
                rows = [
                    await _server_row(client, path, pages, rounds) for path in ("", "/pages", "/failures")
                ]
                rows += await _list_rows(client, crawls, rounds)
            return rows + (await _browser_rows(url, pages, crawls) if CHROMIUM else [])


@asynccontextmanager
async def _served(folder: Path) -> AsyncIterator[tuple[str, Settings]]:
    settings = Settings(_env_file=None, data_dir=folder / "data", api_secret=SECRET, min_free_disk_bytes=0)
    async with connected_database(settings) as database:
        await schema.upgrade(database)
        async with service_parts(settings) as parts:
            stopping, listener = asyncio.Event(), socket.socket()
            listener.bind(("127.0.0.1", 0))
            config = uvicorn.Config(create_app(parts, stopping), log_config=None, access_log=False)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", settings
            stopping.set()
            server.should_exit = True
            await serving


async def _median_ms(client: httpx2.AsyncClient, paths: Sequence[str], rounds: int) -> list[float]:
    """The median of each path; the paths are requested in turns."""
    taken: list[list[float]] = [[] for _ in paths]
    for _ in range(rounds + 1):
        for times, path in zip(taken, paths, strict=True):
            began = time.perf_counter()
            (await client.get(path)).raise_for_status()
            times.append((time.perf_counter() - began) * 1000)
    return [statistics.median(times[1:]) for times in taken]


async def _server_row(client: httpx2.AsyncClient, below: str, pages: int, rounds: int) -> Row:
    large, small = await _median_ms(client, [f"/crawls/{each}{below}" for each in (CRAWL, SMALL)], rounds)
    what = f"/crawls/…{below} of {pages:,} pages, p50"
    return Row(PART, what, large, "ms", f"{SMALL_PAGES} pages {number(small)} ms", at_most=MAX_SERVER_MS)


async def _list_rows(client: httpx2.AsyncClient, crawls: int, rounds: int) -> list[Row]:
    asked = {
        f"/ of {crawls:,} crawls, p50": "/",
        "– the last of them": f"/?offset={crawls - 25}",
        "– those of one site": "/?url=site-77.",
        "– completed ones of one site": "/?status=completed&url=site-77.",
        "– of a site that has none": "/?url=nothing-like-it",
    }
    taken = await _median_ms(client, list(asked.values()), rounds)
    return [Row(PART, what, ms, "ms", at_most=MAX_SERVER_MS) for what, ms in zip(asked, taken, strict=True)]


async def _browser_rows(url: str, pages: int, crawls: int) -> list[Row]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(base_url=url, viewport={"width": 1440, "height": 900})
        weights: dict[str, int] = {}
        page.on(
            "response",
            lambda answer: weights.update({answer.url: int(answer.headers.get("content-length", 0))}),
        )
        await page.goto("/sign-in")
        await page.fill("#secret", SECRET)
        await page.click("button[type=submit]")
        await page.wait_for_url(f"{url}/")
        weights.clear()
        await page.goto(f"/crawls/{CRAWL}", wait_until="load")
        weight = sum(weights.values()) / 1000
        await page.goto(f"/crawls/{CRAWL}/pages", wait_until="networkidle")
        frames = await _frames_ms(page)
        await page.goto("/", wait_until="load")
        shifted = await page.evaluate(SHIFTS)
        await browser.close()
    return [
        Row(PART, f"weight of the page of {pages:,} pages, all files", weight, "kB", at_most=MAX_WEIGHT_KB),
        Row(
            PART,
            "a frame of the scrolling waterfall, p50",
            statistics.median(frames),
            "ms",
            at_most=MAX_FRAME_MS,
        ),
        Row(PART, "– p95", frames[int(0.95 * FRAMES)], "ms", at_most=MAX_FRAME_MS),
        Row(PART, f"layout shift of / of {crawls:,} crawls, in 10 s", shifted, "", at_most=MAX_SHIFT),
    ]


async def _frames_ms(page: Page) -> list[float]:
    """The work of the page's main thread for each of some frames, with what asking for it costs."""
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})
    taken, before = [], await _busy_seconds(session)
    for _ in range(FRAMES):
        await page.evaluate(SCROLL, SCROLL_PIXELS)
        now = await _busy_seconds(session)
        taken.append((now - before) * 1000)
        before = now
    return sorted(taken)


SHIFTS = """new Promise((done) => {
    let shifted = 0;
    new PerformanceObserver((list) => { for (const each of list.getEntries()) shifted += each.value; })
        .observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(shifted), 10000);
})"""

SCROLL = """(pixels) => new Promise((done) => {
    document.querySelector(".wf-scroll").scrollTop += pixels;
    requestAnimationFrame(() => requestAnimationFrame(done));
})"""


async def _busy_seconds(session: CDPSession) -> float:
    """The time that the page's main thread has worked."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


if __name__ == "__main__":
    run_alone(measure, __doc__)
