"""Makes the pictures of the dashboard in `docs/pictures`, from real crawls of a local website.

    python -m tests.screenshots

The website is that of `crawlscope demo`, with a few links that lead nowhere. The whole service crawls it
twice, with its real embedder, and one page changes in between.
"""

import asyncio
import re
import tempfile
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import Browser

from crawlscope.cli import demo_site
from tests.support.browser import chromium, signed_in_page
from tests.support.stack import API_SECRET, Stack, eventually, running_stack

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PORT = 8109
LIMIT = 48
CHANGED = "abc.html"
NEW = "<p>This paragraph is new since the last crawl.</p>"
MISSING = "".join(f'<a href="missing-{number}.html">missing</a>' for number in range(3))


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="crawlscope-screenshots-") as folder:
        site = Path(folder, "site")
        site.mkdir()
        demo_site.build(site)
        index = site / "index.html"
        index.write_text(re.sub(r"(<body[^>]*>)", rf"\1{MISSING}", index.read_text(), count=1))
        with (
            demo_site.serve(site, PORT) as url,
            running_stack(Path(folder, "data"), WORKERS="2", ALLOW_PRIVATE_TARGETS="true") as stack,
        ):
            first = _crawled(stack, url)
            changed = site / CHANGED
            changed.write_text(changed.read_text().replace("</body>", f"{NEW}</body>"))
            second = _crawled(stack, url)
            asyncio.run(_take_pictures(stack, url.rsplit("/", 1)[0], first, second))


def _crawled(stack: Stack, url: str) -> str:
    crawl_id = stack.start_crawl({"url": url, "limit": LIMIT, "engine": "builtin"}).json()["crawl_id"]
    eventually(lambda: stack.crawl(crawl_id)["sealed"], bool, 900, 1.0)
    return str(crawl_id)


async def _take_pictures(stack: Stack, site: str, first: str, second: str) -> None:
    changed = quote(f"{site}/{CHANGED}", safe="")
    pages = {
        "crawls": "/",
        "crawl": f"/crawls/{first}",
        "waterfall": f"/crawls/{first}/pages",
        "failures": f"/crawls/{first}/failures",
        "deliveries": f"/crawls/{first}/deliveries",
        "page": f"/crawls/{second}/page?url={changed}",
        "compare": f"/compare?a={second}&b={first}",
        "difference": f"/compare?a={second}&b={first}&url={changed}",
        "search": "/search?q=run+a+function+in+another+thread",
        "system": "/system",
    }
    async with chromium() as browser:
        for colours in ("light", "dark"):
            await _take(browser, stack, pages, colours)


async def _take(browser: Browser, stack: Stack, pages: dict[str, str], colours: str) -> None:
    options = {"color_scheme": colours, "timezone_id": "UTC"}
    async with signed_in_page(browser, stack.url, API_SECRET, **options) as watched:
        for name, path in pages.items():
            await watched.page.goto(path, wait_until="load")
            await watched.page.wait_for_timeout(500)
            await watched.page.screenshot(path=PICTURES / f"{name}-{colours}.png", animations="disabled")
        if watched.faults:
            raise SystemExit("\n".join(watched.faults))


if __name__ == "__main__":
    main()
