"""A client for another service's JSON API: calls end with a response or a one-line error without secrets."""

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import httpx2

from crawlscope.core.backoff import retry_context
from crawlscope.core.closing import ClosedAtEnd
from crawlscope.core.errors import RemoteUnavailable
from crawlscope.core.retry_after import retry_after_seconds
from crawlscope.core.settings import without_credentials
from crawlscope.core.tls import trusted
from crawlscope.core.values import storable

_CONNECT_SECONDS = 5.0
_ATTEMPTS = 4
_MAX_REASON_LENGTH = 300
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_NEVER_ACCEPTED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True)
class Response:
    method: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def status_line(self) -> str:
        known = self.status in HTTPStatus.__members__.values()
        return f"{self.status} {HTTPStatus(self.status).phrase}" if known else str(self.status)

    def json(self) -> Any:
        """None where the body is not JSON."""
        try:
            return json.loads(self.body)  # takes lone surrogates, which JavaScript escapes and sends
        except (ValueError, RecursionError):
            return None


class RemoteApi(ClosedAtEnd):
    """Repeats calls, a few times within `patience_seconds`, if that can help and nothing is done twice."""

    called: ClassVar[str]
    unavailable: ClassVar[type[RemoteUnavailable]]
    largest_answer_bytes: ClassVar[int]

    def __init__(
        self,
        url: httpx2.URL,
        *,
        headers: Mapping[str, str],
        auth: tuple[str, str] | None,
        patience_seconds: float,
        hidden: Collection[str | None],
    ) -> None:
        """`hidden`: secrets that no error may contain. The first one reads the certificates: 0.1 to 0.5 s."""
        self._url = url
        self._hidden = [secret for secret in hidden if secret]
        self._patience_seconds = patience_seconds
        self._http = httpx2.AsyncClient(
            auth=auth,
            headers=headers,
            timeout=httpx2.Timeout(patience_seconds, connect=min(patience_seconds, _CONNECT_SECONDS)),
            trust_env=False,
            verify=trusted(),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def name(self) -> str:
        """With its address, without credentials."""
        return f"{self.called} at {self.address}"

    @property
    def address(self) -> str:
        return without_credentials(str(self._url))

    @abstractmethod
    def complaint(self, response: Response) -> str:
        """The service's own error message; empty if there is none."""

    def is_passing(self, response: Response) -> bool:
        """Whether another attempt can end differently."""
        return (
            response.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
            or response.status >= 500
        )

    def requested_delay(self, response: Response) -> float | None:
        """The seconds that the service asks to wait."""
        return retry_after_seconds(response.headers.get("retry-after"))

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Response:
        """`path` follows the URL's own and may hold a query. Raises `unavailable`."""
        deadline = time.monotonic() + self._patience_seconds

        def retry_delay(error: Exception) -> bool | float:
            if not isinstance(error, RemoteUnavailable) or (method == "POST" and error.maybe_done):
                return False
            if error.retry_after is None:
                return True
            return error.retry_after if time.monotonic() + error.retry_after < deadline else False

        attempts = retry_context(
            retry_delay, attempts=_ATTEMPTS, timeout=None, wait_initial=0.2, wait_jitter=0.2, wait_max=2.0
        )
        try:
            async with asyncio.timeout(self._patience_seconds):
                async for attempt in attempts:
                    with attempt:
                        response = await self._send(method, path, body)
                return response
        except TimeoutError:
            raise self._silent(self._patience_seconds, maybe_done=True) from None

    def reason(self, response: Response) -> str:
        """Its error message on one line after a colon, without secrets and without what cannot be stored."""
        line = storable(" ".join(self.complaint(response).split()))
        for secret in self._hidden:
            line = line.replace(secret, "…")
        return f": {line[:_MAX_REASON_LENGTH]}" if line else ""

    def failure(
        self, what: str, *, retry_after: float | None = None, maybe_done: bool = False
    ) -> RemoteUnavailable:
        return self.unavailable(f"{self.name} {what}", retry_after=retry_after, maybe_done=maybe_done)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Response:
        try:
            async with self._http.stream(method, self.address + path, json=body) as answer:
                content = await self._body(answer)
                response = Response(method, answer.status_code, answer.headers, content)
        except httpx2.TimeoutException as error:
            sent = not isinstance(error, _NEVER_SENT)
            seconds = self._patience_seconds if sent else min(self._patience_seconds, _CONNECT_SECONDS)
            raise self._silent(seconds, maybe_done=sent) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = str(error) or type(error).__name__
            maybe_done = not isinstance(error, _NEVER_SENT)
            raise self.failure(f"cannot be reached ({why}).", maybe_done=maybe_done) from None
        if self.is_passing(response):
            raise self.failure(
                f"answered {response.status_line}{self.reason(response)}",
                retry_after=self.requested_delay(response),
                maybe_done=response.status not in _NEVER_ACCEPTED,
            )
        return response

    async def _body(self, answer: httpx2.Response) -> bytes:
        content = bytearray()
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > self.largest_answer_bytes:
                size = f"{self.largest_answer_bytes >> 20} MiB"
                raise self.failure(f"answered more than {size}.", maybe_done=True)
        return bytes(content)

    def _silent(self, seconds: float, *, maybe_done: bool) -> RemoteUnavailable:
        return self.failure(f"did not answer within {seconds:g} s.", maybe_done=maybe_done)


def login(url: httpx2.URL) -> tuple[str, str] | None:
    """Name and password of the URL, such as those of a proxy in front of the service."""
    return (url.username, url.password) if url.username else None
