"""Sends one request for one page: an honest user agent, bounds on time and size, no redirects, no retries."""

import asyncio
import logging
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import httpcore2
import httpx2

from crawlscope import __version__
from crawlscope.core.closing import ClosedAtEnd
from crawlscope.core.tls import trusted
from crawlscope.crawler.targets import PrivateTarget, PublicNetwork

ROBOT = "Crawlscope"
USER_AGENT = f"{ROBOT}/{__version__} (self-hosted crawler; obeys robots.txt)"
MAX_BODY_BYTES = 20 * 1024 * 1024
_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.5",
    # Brotli and zstd can turn a few bytes into gigabytes within one chunk.
    "Accept-Encoding": "gzip, deflate",
}
_COMPRESSIONS = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;,\"']+)", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"\s*([\w!#$&^.+-]+/[\w!#$&^.+-]+)", re.ASCII)
_GZIP = b"\x1f\x8b\x08"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXT_TYPES = frozenset(
    {
        "",
        "application/html",
        "application/json",
        "application/xml",
        "application/x-ndjson",
        "application/yaml",
    }
)
_UNKNOWN_TYPES = frozenset({"unknown/unknown", "application/unknown"})
_NO_TEXT_TYPES = frozenset({"text/css", "text/javascript", "text/ecmascript", "text/calendar", "text/vcard"})


_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, bool], ...] = (
    (httpx2.DecodingError, "the body cannot be decompressed", False),
    ((httpx2.InvalidURL, httpx2.UnsupportedProtocol), "led to an address that cannot be requested", False),
    (httpx2.NetworkError, "connection failed", True),
    (httpx2.RemoteProtocolError, "connection closed early or no HTTP spoken", True),
)
"""By type of error, if no cause says more: its meaning, and whether another attempt can help."""


class FetchFailed(Exception):
    """No HTTP answer; the text is one line that says why."""

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        unreachable: bool = False,
        code: str | None = None,
    ) -> None:
        """`unreachable`: the same is true of any page of that host. `code` names the cause, if there is a
        code for it."""
        super().__init__(message)
        self.retryable = retryable
        self.unreachable = unreachable
        self.code = code

    @classmethod
    def of(cls, error: Exception) -> "FetchFailed":
        """The words of the first cause that has a reason."""
        for cause in _causes(error):
            match cause:
                case PrivateTarget():
                    return cls(str(cause), unreachable=True)
                case socket.gaierror():
                    return cls(f"the name could not be resolved: {cause.strerror}", unreachable=True)
                case ssl.SSLError():
                    return cls(f"no secure connection: {cause.reason or cause}", unreachable=True)
                case ConnectionRefusedError():
                    return cls("connection refused", retryable=True, unreachable=True)
                case ConnectionResetError() | BrokenPipeError():
                    return cls("connection reset", retryable=True)
        words = " ".join(str(error).split()) or type(error).__name__
        for kinds, message, retryable in _FAILURES:
            if isinstance(error, kinds):
                return cls(f"{message}: {words}", retryable=retryable)
        return cls(words)


@dataclass(frozen=True)
class FetchedPage:
    url: str
    status_code: int
    content_type: str
    """As the server sent it, empty if it sent none."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case; several of one name have a line each."""

    @classmethod
    def without_body(cls, url: str, response: httpx2.Response) -> "FetchedPage":
        """Header values are read as UTF-8 if they are valid, as browsers read addresses in them."""
        found: dict[str, str] = {}
        for name, value in response.headers.raw:
            try:
                text = value.decode("utf-8")
            except UnicodeDecodeError:
                text = value.decode("latin-1")
            key = name.decode("latin-1").lower()
            found[key] = f"{found[key]}\n{text}" if key in found else text
        return cls(url, response.status_code, response.headers.get("content-type", ""), headers=found)

    @property
    def media_type(self) -> str:
        """In lower case, the last of several, as in browsers; empty where the server knew none."""
        found = [
            media_type[1].lower()
            for each in self.content_type.split(",")
            if (media_type := _MEDIA_TYPE.match(each))
        ]
        return found[-1] if found and found[-1] not in _UNKNOWN_TYPES else ""

    @property
    def charset(self) -> str | None:
        found = _CHARSET.search(self.content_type)
        return found[1] if found else None

    @property
    def redirects(self) -> bool:
        return self.status_code in _REDIRECTS


def may_hold_text(media_type: str) -> bool:
    if media_type in _NO_TEXT_TYPES:
        return False
    if media_type.startswith("image/"):
        return False  # image/svg+xml
    return (
        media_type in _TEXT_TYPES or media_type.startswith("text/") or media_type.endswith(("+xml", "+json"))
    )


class PageClient(ClosedAtEnd):
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
            follow_redirects=False,
            # A proxy would connect in our place, past the check of the address.
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(self, url: str, *, text_only: bool = False, first_bytes: int | None = None) -> FetchedPage:
        """With `text_only`, the body of images, archives and the like is not read; with `first_bytes`, the
        rest after them is not. Raises `FetchFailed`."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._client.stream("GET", url) as response:
                page = FetchedPage.without_body(url, response)
                if page.redirects or (text_only and not may_hold_text(page.media_type)):
                    return page
                return replace(page, body=await self._body(response, first_bytes))
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise FetchFailed(
                f"no complete answer within {self._timeout_seconds:g} seconds", code="scrape_timeout"
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise FetchFailed.of(error) from error

    async def _body(self, response: httpx2.Response, first_bytes: int | None) -> bytes:
        """Codings that were not requested can turn a few bytes into gigabytes within one chunk."""
        codings = {each.strip().lower() for each in response.headers.get("content-encoding", "").split(",")}
        if unwanted := codings & _COMPRESSIONS:
            raise FetchFailed(f"the body is compressed with {min(unwanted)}, which was not requested")
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
        found = bytes(body)
        if found.startswith(_GZIP):  # although nothing said so: files such as `sitemap.xml.gz`
            with suppress(zlib.error):
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
                found = unpacker.decompress(found, first_bytes or self._max_bytes + 1)
        if first_bytes is None and len(found) > self._max_bytes:
            raise self._too_large()
        return found[:first_bytes]

    def _too_large(self) -> FetchFailed:
        return FetchFailed(f"too large: the page has more than {self._max_bytes:,} bytes")


class _Transport(httpx2.AsyncHTTPTransport):
    def __init__(self, *, allow_private: bool) -> None:
        super().__init__(verify=trusted())
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted(),
            max_connections=None,
            max_keepalive_connections=100,
            keepalive_expiry=5.0,
            network_backend=None if allow_private else PublicNetwork(),
        )


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
