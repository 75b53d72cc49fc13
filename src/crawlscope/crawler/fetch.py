"""Asks a website for one page, honestly and within bounds."""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from crawlscope import __version__
from crawlscope.crawler.targets import PrivateTarget, PublicNetwork

ROBOT = "Crawlscope"
USER_AGENT = f"{ROBOT}/{__version__} (self-hosted crawler; obeys robots.txt)"
MAX_BODY_BYTES = 20 * 1024 * 1024
_MAX_REDIRECTS = 10
_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.5",
    # Brotli and zstd can turn a few bytes into gigabytes within one chunk.
    "Accept-Encoding": "gzip, deflate",
}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)", re.IGNORECASE)
_TEXT_TYPES = frozenset(
    {"", "application/json", "application/xml", "application/x-ndjson", "application/yaml"}
)
_NO_TEXT_TYPES = frozenset({"text/css", "text/javascript", "text/ecmascript", "text/calendar", "text/vcard"})


class FetchFailed(Exception):
    """No HTTP answer; the text is one line that says why."""

    def __init__(self, message: str, *, retryable: bool = False, unreachable: bool = False) -> None:
        """`unreachable`: the same is true of any page of that host."""
        super().__init__(message)
        self.retryable = retryable
        self.unreachable = unreachable


@dataclass(frozen=True)
class FetchedPage:
    url: str
    """After redirects."""
    status_code: int
    content_type: str
    """As the server gave it, empty where it gave none."""
    body: bytes = b""

    @property
    def media_type(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        found = _CHARSET.search(self.content_type)
        return found[1] if found else None


def may_hold_text(media_type: str) -> bool:
    if media_type in _NO_TEXT_TYPES:
        return False
    return (
        media_type in _TEXT_TYPES or media_type.startswith("text/") or media_type.endswith(("+xml", "+json"))
    )


class PageClient:
    """One connection pool per crawl: no sessions, no disguise, no proxies. An async context manager."""

    def __init__(
        self, *, timeout_seconds: float, allow_private: bool, max_bytes: int = MAX_BODY_BYTES
    ) -> None:
        # One INFO line per request otherwise.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._client = httpx2.AsyncClient(
            transport=_Transport(allow_private=allow_private),
            headers=_HEADERS,
            timeout=timeout_seconds,
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            # A proxy would connect in our place, past the check of the address.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch(
        self, url: str, *, text_only: bool = False, first_bytes: int | None = None
    ) -> FetchedPage:
        """With `text_only` the body of images, archives and the like is left unread, with `first_bytes` what
        comes after them. Raises `FetchFailed`.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds), self._client.stream("GET", url) as response:
                page = FetchedPage(
                    str(response.url), response.status_code, response.headers.get("content-type", "")
                )
                if text_only and not may_hold_text(page.media_type):
                    return page
                return replace(page, body=await self._body(response, first_bytes))
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise FetchFailed(f"no complete answer within {self._timeout_seconds:g} seconds") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise _explained(error) from error

    async def _body(self, response: httpx2.Response, first_bytes: int | None) -> bytes:
        announced = response.headers.get("content-length", "")
        if first_bytes is None and announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if first_bytes is not None and len(body) >= first_bytes:
                break
            if len(body) > self._max_bytes:
                raise self._too_large()
        return bytes(body[:first_bytes])

    def _too_large(self) -> FetchFailed:
        return FetchFailed(f"too large: the page has more than {self._max_bytes:,} bytes")


class _Transport(httpx2.AsyncHTTPTransport):
    def __init__(self, *, allow_private: bool) -> None:
        context = httpx2.create_ssl_context()
        super().__init__(verify=context)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=100,
            keepalive_expiry=5.0,
            network_backend=None if allow_private else PublicNetwork(),
        )


def _explained(error: Exception) -> FetchFailed:
    for cause in _causes(error):
        match cause:
            case PrivateTarget():
                return FetchFailed(str(cause), unreachable=True)
            case socket.gaierror():
                return FetchFailed(f"the name could not be resolved: {cause.strerror}", unreachable=True)
            case ssl.SSLError():
                return FetchFailed(f"no secure connection: {cause.reason or cause}", unreachable=True)
            case ConnectionRefusedError():
                return FetchFailed("connection refused", retryable=True, unreachable=True)
            case ConnectionResetError() | BrokenPipeError():
                return FetchFailed("connection reset", retryable=True)
            case _:
                continue
    return _explained_by_kind(error)


def _explained_by_kind(error: Exception) -> FetchFailed:
    words = " ".join(str(error).split())
    match error:
        case httpx2.TooManyRedirects():
            return FetchFailed(f"more than {_MAX_REDIRECTS} redirects")
        case httpx2.DecodingError():
            return FetchFailed(f"the body cannot be decompressed: {words}")
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return FetchFailed(f"led to an address that cannot be asked for: {words}")
        case httpx2.NetworkError():
            return FetchFailed(f"connection failed: {words or type(error).__name__}", retryable=True)
        case httpx2.RemoteProtocolError():
            return FetchFailed(f"connection closed early or no HTTP spoken: {words}", retryable=True)
        case _:
            return FetchFailed(words or type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and the members of groups on the way."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
