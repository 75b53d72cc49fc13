"""One call of Firecrawl's API: however it ends, it becomes an answer or a one-line error without the key."""

import asyncio
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2
import stamina
from stamina.instrumentation import set_on_retry_hooks

from crawlscope.database.values import storable
from crawlscope.errors import FirecrawlJobUnknown, FirecrawlRefused, FirecrawlUnavailable
from crawlscope.firecrawl.answers import tells_of_job
from crawlscope.http_settings import header_safe_key, server_url
from crawlscope.retry_after import retry_after_seconds

_CONNECT_SECONDS = 5.0
_ATTEMPTS = 4
_LARGEST_ANSWER_BYTES = 128 * 1024 * 1024
"""A page of results ends at 10 MiB, or with its first document."""
_LONGEST_REASON = 300
_WAIT_IN_WORDS = re.compile(r"retry after (\d+)s")
"""How the hosted Firecrawl says it, where no header does."""
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_NEVER_ACCEPTED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

set_on_retry_hooks(())  # a retry that succeeds is no news, and stamina would log it as a warning


class EndpointMissing(Exception):
    """The server is too old for it. That it says in HTML; that it does not know a crawl, in JSON."""


@dataclass(frozen=True)
class _Response:
    method: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def status_line(self) -> str:
        known = self.status in HTTPStatus.__members__.values()
        return f"{self.status} {HTTPStatus(self.status).phrase}" if known else str(self.status)

    @property
    def passing(self) -> bool:
        """Whether asking again can end differently."""
        return self.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or self.status >= 500

    @property
    def names_missing_endpoint(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND and f"Cannot {self.method} /".encode() in self.body

    def fields(self) -> dict[str, Any] | None:
        """None for anything but a JSON object."""
        try:
            answer = json.loads(self.body)  # takes lone surrogates, which JavaScript escapes and sends
        except (ValueError, RecursionError):
            return None
        return answer if isinstance(answer, dict) else None

    def refuses(self, fields: dict[str, Any] | None) -> bool:
        """Some servers say of a job that failed, too, that there is no success: that is an answer."""
        if not 200 <= self.status < 300:
            return True
        if fields is None or fields.get("success") is not False:
            return False
        return self.method != "GET" or not tells_of_job(fields)


class FirecrawlServer:
    """Tries again, a few times within `patience_seconds`, what can pass and cannot be done twice by it."""

    def __init__(
        self, url: str, api_key: str | None, patience_seconds: float, hidden: Collection[str] = ()
    ) -> None:
        self._url = server_url("FIRECRAWL_URL", url)
        key = header_safe_key("FIRECRAWL_API_KEY", api_key)
        self._hidden = [secret for secret in (key, *hidden) if secret]
        self._patience_seconds = patience_seconds
        self._client = httpx2.AsyncClient(
            auth=None if api_key else _login(self._url),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(patience_seconds, connect=min(patience_seconds, _CONNECT_SECONDS)),
            trust_env=False,
        )

    @property
    def name(self) -> str:
        return f"Firecrawl at {self._address}"

    @property
    def _address(self) -> str:
        """Without what may be secret in it."""
        return str(self._url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object answered. `path` follows the base URL's own and may hold a query.

        Raises `EndpointMissing`, `FirecrawlUnavailable`, `FirecrawlRefused` or `FirecrawlJobUnknown`.
        """
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._ask(method, path, body)
        except TimeoutError:
            raise FirecrawlUnavailable(
                f"{self.name} did not answer within {self._patience_seconds:g} s.", maybe_done=True
            ) from None

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience_seconds

        def pause(error: Exception) -> bool | float:
            if not isinstance(error, FirecrawlUnavailable) or (method == "POST" and error.maybe_done):
                return False
            if error.retry_after is None:
                return True
            return error.retry_after if time.monotonic() + error.retry_after < deadline else False

        attempts = stamina.retry_context(
            pause, attempts=_ATTEMPTS, timeout=None, wait_initial=0.2, wait_jitter=0.2, wait_max=2.0
        )
        async for attempt in attempts:
            with attempt:
                response = await self._send(method, path, body)
        return self._answer(response)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> _Response:
        try:
            async with self._client.stream(method, self._address + path, json=body) as answer:
                content = await self._read(answer)
                response = _Response(method, answer.status_code, answer.headers, content)
        except httpx2.TimeoutException as error:
            seconds = self._patience_seconds
            if isinstance(error, _NEVER_SENT):
                seconds = min(seconds, _CONNECT_SECONDS)
            raise FirecrawlUnavailable(
                f"{self.name} did not answer within {seconds:g} s.",
                maybe_done=not isinstance(error, _NEVER_SENT),
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FirecrawlUnavailable(
                f"{self.name} cannot be reached ({str(error) or type(error).__name__}).",
                maybe_done=not isinstance(error, _NEVER_SENT),
            ) from None
        if response.passing:
            raise self._unavailable(response)
        return response

    async def _read(self, answer: httpx2.Response) -> bytes:
        content = bytearray()
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise FirecrawlUnavailable(
                    f"{self.name} answered more than {_LARGEST_ANSWER_BYTES >> 20} MiB.", maybe_done=True
                )
        return bytes(content)

    def _answer(self, response: _Response) -> dict[str, Any]:
        if response.names_missing_endpoint:
            raise EndpointMissing
        fields = response.fields()
        if response.refuses(fields):
            raise self._refusal(response, fields)
        if fields is None:
            kind = response.headers.get("content-type", "no type")
            raise FirecrawlUnavailable(
                f"{self.name} answered something else than a JSON object ({kind}).", maybe_done=True
            )
        return fields

    def _unavailable(self, response: _Response) -> FirecrawlUnavailable:
        fields = response.fields() or {}
        reason = self._reason(fields)
        told = response.headers.get("retry-after") or str(fields.get("retry_after_seconds", ""))
        in_words = _WAIT_IN_WORDS.search(reason)
        return FirecrawlUnavailable(
            f"{self.name} answered {response.status_line}{reason}",
            retry_after=retry_after_seconds(told or (in_words and in_words[1])),
            maybe_done=response.status not in _NEVER_ACCEPTED,
        )

    def _refusal(self, response: _Response, fields: dict[str, Any] | None) -> Exception:
        reason = self._reason(fields or {})
        unknown = response.status == HTTPStatus.NOT_FOUND and response.method != "POST"
        if unknown and "error" in (fields or {}):  # of other servers 404 says that they are no Firecrawl
            return FirecrawlJobUnknown(f"Firecrawl knows no such crawl{reason}", expired="expired" in reason)
        if response.status == HTTPStatus.UNAUTHORIZED:
            reason = f"{reason.rstrip('.')}. Check CRAWLSCOPE_FIRECRAWL_API_KEY."
        elif unknown or fields is None:
            reason = f": {self._address} is no Firecrawl. Check CRAWLSCOPE_FIRECRAWL_URL."
        return FirecrawlRefused(f"Firecrawl refused ({response.status_line}){reason}", response.status)

    def _reason(self, fields: dict[str, Any]) -> str:
        """What Firecrawl says is wrong, on one line after a colon; some servers repeat secrets in it, or send
        what no response and no database can carry.
        """
        line = storable(" ".join(": ".join(_complaints(fields)).split()))
        for secret in self._hidden:
            line = line.replace(secret, "…")
        return f": {line[:_LONGEST_REASON]}" if line else ""


def _complaints(fields: dict[str, Any]) -> Iterator[str]:
    """`details` are what its validation minds."""
    details = fields.get("details")
    issues = [issue for issue in details if isinstance(issue, dict)] if isinstance(details, list) else []
    for words in (fields.get("error"), fields.get("message"), *(issue.get("message") for issue in issues)):
        if isinstance(words, str) and words:
            yield words


def _login(url: httpx2.URL) -> tuple[str, str] | None:
    """Of a proxy in front of a Firecrawl that asks for no key."""
    return (url.username, url.password) if url.username else None
