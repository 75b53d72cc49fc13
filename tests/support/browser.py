"""A real Chromium, and what a page may not do in it: complain, ask other hosts, shut people out."""

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="these tests need Chromium: apt-get install chromium"
)
AXE = Path(__file__).parents[1] / "api" / "dashboard" / "vendor" / "axe.min.js"
SERIOUS = ("serious", "critical")
CONTRAST = {"runOnly": ["color-contrast"]}
"""All that other colours can break."""
WIDER_THAN_THE_SCREEN = """document.documentElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll("body *")]
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
        .map((each) => each.outerHTML.slice(0, 120))"""
WORDS = "tbody th:not(:has(a)), .words, .words .sub, .reason td"
BROKEN_WORDS = f"""[...document.querySelectorAll("{WORDS}")].flatMap((name) =>
    [...name.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).flatMap((node) =>
        [...node.data.matchAll(/\\S+/g)].filter((word) => {{
            const range = new Range();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            return range.getClientRects().length > 1;
        }}).map(String)))"""
PATIENCE_MS = 60_000
"""Generous, because the machine may be busy."""


class Watched:
    """A page with everything that is wrong with it so far."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self._host = urlsplit(base_url).netloc
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", self._note_request)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} {message.location['url']}")

    def _note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme != "data" and parts.netloc != self._host:
            self.faults.append(f"request to another host: {request.url}")

    async def examine(self, path: str) -> None:
        """Opens the page and asserts that it is fit for everybody: wide and narrow, light and dark."""
        await self.page.goto(path)
        await self.page.emulate_media(color_scheme="light")
        found = await violations(self.page)
        await self.page.emulate_media(color_scheme="dark")
        found += await violations(self.page, CONTRAST)
        assert not found, "\n".join([path, *found])
        await self.page.set_viewport_size({"width": 360, "height": 740})
        wide = await self.page.evaluate(WIDER_THAN_THE_SCREEN)
        assert not wide, "\n".join([f"{path} is too wide", *wide])
        broken = await self.page.evaluate(BROKEN_WORDS)
        assert not broken, f"{path} breaks words: {broken}"
        await self.page.set_viewport_size({"width": 1440, "height": 900})
        assert not self.faults, "\n".join([path, *self.faults])


async def violations(page: Page, options: Mapping[str, Any] | None = None) -> list[str]:
    """The serious findings of axe-core, with the elements."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = await page.evaluate(
        "(options) => axe.run({ resultTypes: ['violations'], ...options })", options
    )
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"][:5]
    ]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def signed_in_page(
    browser: Browser, base_url: str, secret: str, **options: Any
) -> AsyncIterator[Watched]:
    context: BrowserContext = await browser.new_context(
        base_url=base_url, viewport={"width": 1440, "height": 900}, **options
    )
    watched = Watched(await context.new_page(), base_url)
    await watched.page.goto("/sign-in")
    await watched.page.fill("#secret", secret)
    await watched.page.click("button[type=submit]")
    await watched.page.wait_for_url(f"{base_url}/")
    try:
        yield watched
    finally:
        await context.close()
