"""One call of changedetection.io's API: however it ends, it becomes an answer or a one-line error without
the key."""

import asyncio
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
import stamina
from pydantic import BaseModel, TypeAdapter, ValidationError
from stamina.instrumentation import set_on_retry_hooks

from crawlscope.database.values import storable
from crawlscope.errors import ChangedetectionRefused, ChangedetectionUnavailable
from crawlscope.http_settings import header_safe_key, server_url
from crawlscope.retry_after import retry_after_seconds

PATIENCE_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_ATTEMPTS = 4
_LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
"""A list has about 500 bytes for each watch."""
_LONGEST_REASON = 300
_WATCHES = "/api/v1/watch"
_IS_FULL = re.compile(r"watch limit reached", re.IGNORECASE)
"""Said with a 429, though waiting changes nothing."""
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_NEVER_ACCEPTED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

Shape = TypeVar("Shape")

set_on_retry_hooks(())  # a retry that succeeds is no news, and stamina would log it as a warning


class _Watch(BaseModel):
    url: str


class _Created(BaseModel):
    uuid: str


_LIST = TypeAdapter(dict[str, _Watch])
_CREATED = TypeAdapter(_Created)


@dataclass(frozen=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def status_line(self) -> str:
        known = self.status in HTTPStatus.__members__.values()
        return f"{self.status} {HTTPStatus(self.status).phrase}" if known else str(self.status)

    @property
    def reason(self) -> str:
        """What it says is wrong, on one line: a JSON text, or the `message` of an object; else nothing."""
        try:
            said = json.loads(self.body)
        except (ValueError, RecursionError):
            return ""
        words = said.get("message") if isinstance(said, dict) else said
        return storable(" ".join(words.split())) if isinstance(words, str) else ""

    @property
    def passing(self) -> bool:
        """Whether asking again can end differently."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return not _IS_FULL.search(self.reason)
        return self.status == HTTPStatus.REQUEST_TIMEOUT or self.status >= 500


class ChangedetectionClient:
    """Talks to the changedetection.io at `url`. Every method raises `ChangedetectionUnavailable`, after
    `patience_seconds` at the latest, or `ChangedetectionRefused`.

    It tries again what can pass and cannot be done twice by it.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        hidden: Collection[str] = (),
    ) -> None:
        """`hidden`: secrets that watches carry, which no error may repeat; the key never is.

        Raises `SettingsError`. Reads the certificates: 0.1 to 0.5 s.
        """
        self._url = server_url("CHANGEDETECTION_URL", url)
        key = header_safe_key("CHANGEDETECTION_API_KEY", api_key)
        self._hidden = [secret for secret in (key, *hidden) if secret]
        self._patience_seconds = patience_seconds
        self._http = httpx2.AsyncClient(
            auth=(self._url.username, self._url.password) if self._url.username else None,
            headers={"x-api-key": key} if key else {},
            timeout=httpx2.Timeout(patience_seconds, connect=min(patience_seconds, _CONNECT_SECONDS)),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def name(self) -> str:
        return f"changedetection.io at {self._address}"

    async def watched_urls(self) -> set[str]:
        return {watch.url for watch in self._read(_LIST, await self._ask("GET")).values()}

    async def create(self, watch: Mapping[str, Any]) -> str:
        """Returns the watch's id. `watch` is in the words of the API: `url`, `title`, `notification_urls` …

        `ChangedetectionUnavailable.maybe_done`: it may have been created all the same.
        """
        return self._read(_CREATED, await self._ask("POST", watch)).uuid

    @property
    def _address(self) -> str:
        """Without what may be secret in it."""
        return str(self._url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")

    async def _ask(self, method: str, watch: Mapping[str, Any] | None = None) -> _Response:
        try:
            async with asyncio.timeout(self._patience_seconds):
                response = await self._ask_again(method, watch)
        except TimeoutError:
            raise self._silent(self._patience_seconds) from None
        if not 200 <= response.status < 300:
            raise self._refusal(response)
        return response

    async def _ask_again(self, method: str, watch: Mapping[str, Any] | None) -> _Response:
        deadline = time.monotonic() + self._patience_seconds

        def pause(error: Exception) -> bool | float:
            if not isinstance(error, ChangedetectionUnavailable) or (method == "POST" and error.maybe_done):
                return False
            if error.retry_after is None:
                return True
            return error.retry_after if time.monotonic() + error.retry_after < deadline else False

        attempts = stamina.retry_context(
            pause, attempts=_ATTEMPTS, timeout=None, wait_initial=0.2, wait_jitter=0.2, wait_max=2.0
        )
        async for attempt in attempts:
            with attempt:
                response = await self._send(method, watch)
        return response

    async def _send(self, method: str, watch: Mapping[str, Any] | None) -> _Response:
        try:
            async with self._http.stream(method, self._address + _WATCHES, json=watch) as answer:
                response = _Response(answer.status_code, answer.headers, await self._body(answer))
        except _NEVER_SENT as error:
            raise self._unavailable(f"cannot be reached ({_why(error)})") from None
        except httpx2.TimeoutException:
            raise self._silent(self._patience_seconds) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unavailable(f"broke off ({_why(error)})", maybe_done=True) from None
        if response.passing:
            raise self._unavailable(
                f"answered {response.status_line}{self._reason(response)}",
                retry_after=retry_after_seconds(response.headers.get("retry-after")),
                maybe_done=response.status not in _NEVER_ACCEPTED,
            )
        return response

    async def _body(self, answer: httpx2.Response) -> bytes:
        content = bytearray()
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise self._unavailable(
                    f"answered more than {_LARGEST_ANSWER_BYTES >> 20} MiB", maybe_done=True
                )
        return bytes(content)

    def _read(self, shape: TypeAdapter[Shape], response: _Response) -> Shape:
        try:
            return shape.validate_json(response.body)
        except ValidationError:
            raise self._unavailable(
                "answered something else than its API does. Check CRAWLSCOPE_CHANGEDETECTION_URL",
                maybe_done=True,
            ) from None

    def _silent(self, seconds: float) -> ChangedetectionUnavailable:
        return self._unavailable(f"did not answer within {seconds:g} s", maybe_done=True)

    def _unavailable(
        self, what: str, *, retry_after: float | None = None, maybe_done: bool = False
    ) -> ChangedetectionUnavailable:
        return ChangedetectionUnavailable(
            f"{self.name} {what}.", retry_after=retry_after, maybe_done=maybe_done
        )

    def _refusal(self, response: _Response) -> ChangedetectionRefused:
        reason = self._reason(response)
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            reason = f"{reason.rstrip('.')}. Check CRAWLSCOPE_CHANGEDETECTION_API_KEY."
        elif not reason:
            reason = f": {self._address} is no changedetection.io. Check CRAWLSCOPE_CHANGEDETECTION_URL."
        return ChangedetectionRefused(
            f"changedetection.io refused ({response.status_line}){reason}", response.status
        )

    def _reason(self, response: _Response) -> str:
        """After a colon; it may repeat what a watch carries."""
        line = response.reason
        for secret in self._hidden:
            line = line.replace(secret, "…")
        return f": {line[:_LONGEST_REASON]}" if line else ""


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
