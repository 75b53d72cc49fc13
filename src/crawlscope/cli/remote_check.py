"""Checks a deployed service from outside, as its clients see it: `crawlscope doctor --url`."""

import asyncio
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

from crawlscope import __version__
from crawlscope.api.client import ServiceClient
from crawlscope.api.connect import client_at
from crawlscope.api.rendering.words import duration
from crawlscope.cli.doctor import Failed, Finding, found
from crawlscope.core.errors import ServiceUnavailable, UsageError
from crawlscope.core.settings import Settings, keeps_secrets
from crawlscope.core.vocabulary import Engine
from crawlscope.insights.schemas import CrawlMetricsResponse
from crawlscope.search.schemas import SearchFilters

CRAWL_SECONDS = 60.0
PAGES = 2
SITE_REMEDY = "give --site with the URL of a site that the service can reach and may crawl"
_NEEDED = ("address", "secret", "crawl")
"""Without them, the checks that follow would only repeat the fault."""


async def examine_from_outside(
    url: str, settings: Settings, site: str | None, *, plain_http: bool = False
) -> AsyncIterator[Finding]:
    """Yields each finding as soon as it is made. `site` is crawled; by default two pages of this process.

    Every request has the API secret, so none is sent to another machine without TLS, unless `plain_http`.
    """
    async with aclosing(client_at(url, None, settings)) as client:
        if not plain_http and not keeps_secrets(url):
            words = "without TLS, others on the network can read the API secret, so nothing was sent"
            yield Finding("address", False, f"{words}: use https (docs/deployment.md), or give --plain-http")
            return
        with _own_site(url) if site is None else _given(site) as (address, word):
            visit = Visit(client, url, address, word, is_own=site is None)
            for part, check in visit.checks.items():
                finding = await found(part, check(), settings)
                yield finding
                if not finding.ok and part in _NEEDED:
                    break
            if visit.crawl_id is not None:
                yield await found("cleanup", visit.delete(), settings)


class Visit:
    """The checks, in order; each returns its result in words, or raises `Failed` or `CrawlscopeError`."""

    def __init__(self, client: ServiceClient, url: str, site: str, word: str, *, is_own: bool) -> None:
        self._client = client
        self._url = url
        self._site = site
        self._word = word
        self._is_own = is_own
        self.crawl_id: str | None = None
        self.checks: dict[str, Callable[[], Awaitable[str]]] = {
            "address": self.address,
            "parts": self.parts,
            "secret": self.secret,
            "live feed": self.live_feed,
            "crawl": self.crawl,
            "search": self.search,
        }

    async def address(self) -> str:
        try:
            health = await self._client.health()
        except ServiceUnavailable as error:
            raise Failed(str(error), _remedy(error)) from error
        except UsageError as error:
            raise Failed(str(error), "check the proxy's target") from error
        parts, version = urlsplit(self._url), health.get("version")
        how = " by TLS" if parts.scheme == "https" else ""
        if not keeps_secrets(self._url):
            how = " without TLS, so others on the network can read the API secret: see docs/deployment.md"
        other = "" if version == __version__ else f"; this command is version {__version__}"
        return f"version {version} answers{how}{other}"

    async def parts(self) -> str:
        found_parts = (await self._client.health())["parts"]
        failing = [f"{name}: {part['detail']}" for name, part in found_parts.items() if part["state"] != "ok"]
        if failing:
            raise Failed("; ".join(failing), "run `crawlscope doctor` where the service runs")
        return f"{', '.join(found_parts)} work"

    async def secret(self) -> str:
        try:
            stats = await self._client.stats()
        except UsageError as error:
            raise Failed(str(error), "CRAWLSCOPE_API_SECRET has to be its API secret, or a key") from error
        return f"accepted; {stats.documents:,} documents are searchable"

    async def live_feed(self) -> str:
        try:
            await self._client.require_live_feed()
        except ServiceUnavailable as error:
            raise Failed(str(error), "turn off the proxy's buffering: docs/deployment.md") from error
        return "events arrive at once"

    async def crawl(self) -> str:
        try:
            self.crawl_id = await self._client.start_crawl(self._site, PAGES, Engine.BUILTIN)
        except UsageError as error:
            remedy = SITE_REMEDY if self._is_own else ""
            raise Failed(str(error), remedy) from error
        try:
            async with asyncio.timeout(CRAWL_SECONDS):
                crawl = await self._client.wait(self.crawl_id)
        except TimeoutError:
            crawl = await self._client.crawl(self.crawl_id)
            reason = crawl.verdict.reason if crawl.verdict else ""
            waits = f"after {CRAWL_SECONDS:.0f} s it waits for {crawl.awaits}"
            raise Failed(
                f"{waits}: {reason}".rstrip(": "), "check that a worker runs and takes crawls"
            ) from None
        return await self._outcome(crawl)

    async def _outcome(self, crawl: CrawlMetricsResponse) -> str:
        if not crawl.pages_indexed:
            pages = (await self._client.pages(crawl.crawl_id)).pages
            reason = next((page.error for page in pages if page.error), crawl.error_message)
            raise Failed(f"no page of {self._site} was indexed: {reason or crawl.status}", SITE_REMEDY)
        took = duration(crawl.time_to_searchable_ms)
        return f"{crawl.pages_indexed} pages of {self._site} were searchable after {took}"

    async def search(self) -> str:
        assert self.crawl_id is not None
        filters = SearchFilters(crawl_id=self.crawl_id)
        response = await self._client.search(self._word or self._site, filters=filters)
        if not response.results:
            raise Failed("does not find the crawled pages", "run `crawlscope doctor` where the service runs")
        return f"finds the crawled pages in {duration(response.took_ms)}"

    async def delete(self) -> str:
        assert self.crawl_id is not None
        await self._client.delete(self.crawl_id)
        return "the crawl is deleted again"


def _remedy(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "renew the certificate, or name its authority in SSL_CERT_FILE"
        cause = cause.__cause__ or cause.__context__
    return "check the URL, the proxy and the firewall"


@contextmanager
def _given(site: str) -> Iterator[tuple[str, str]]:
    yield site, ""


@contextmanager
def _own_site(url: str) -> Iterator[tuple[str, str]]:
    """Two pages at the address from which this machine reaches the service; gives a word of theirs."""
    word = f"doctor{secrets.token_hex(4)}"
    with ThreadingHTTPServer((_own_address(url), 0), partial(_Page, word)) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            host, port = str(server.server_address[0]), server.server_address[1]
            yield f"http://{host}:{port}/1", word
        finally:
            server.shutdown()
            thread.join()


def _own_address(url: str) -> str:
    """Nothing is sent: connecting a datagram socket only chooses a route."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname, parts.port or 443))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class _Page(BaseHTTPRequestHandler):
    def __init__(self, word: str, *request: object) -> None:
        self._word = word
        super().__init__(*request)  # type: ignore[arg-type]  # what the server gives each handler

    def do_GET(self) -> None:
        number = self.path.strip("/")
        known = number in ("1", "2")
        link = "<a href='/2'>next</a>" if number == "1" else ""
        text = f"<title>Check {number}</title><main><h1>Check {number}</h1><p>Page of {self._word} {link}"
        body = text.encode() if known else b"not here"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The findings say all."""
