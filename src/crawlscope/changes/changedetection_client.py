"""changedetection.io's API: each call ends in an answer or a one-line error without the key."""

import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from crawlscope.core.errors import ChangedetectionRefused, ChangedetectionUnavailable
from crawlscope.core.http_settings import header_safe_key, server_url
from crawlscope.core.remote_api import RemoteApi, Response, login

PATIENCE_SECONDS = 30.0
_WATCHES = "/api/v1/watch"
_IS_FULL = re.compile(r"watch limit reached", re.IGNORECASE)
"""Sent with a 429, though waiting changes nothing."""

Shape = TypeVar("Shape")


class _Watch(BaseModel):
    url: str


class _Created(BaseModel):
    uuid: str


_LIST = TypeAdapter(dict[str, _Watch])
_CREATED = TypeAdapter(_Created)


class ChangedetectionClient(RemoteApi):
    """Talks to the changedetection.io at `url`. Every method raises `ChangedetectionUnavailable`, after
    `patience_seconds` at the latest, or `ChangedetectionRefused`.
    """

    called = "changedetection.io"
    unavailable = ChangedetectionUnavailable
    largest_answer_bytes = 64 * 1024 * 1024
    """A list has about 500 bytes for each watch."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        hidden: Collection[str] = (),
    ) -> None:
        """`hidden`: secrets that watches carry, which no error may repeat; the key never is.

        Raises `SettingsError`.
        """
        address = server_url("CHANGEDETECTION_URL", url)
        key = header_safe_key("CHANGEDETECTION_API_KEY", api_key)
        super().__init__(
            address,
            headers={"x-api-key": key} if key else {},
            auth=login(address),
            patience_seconds=patience_seconds,
            hidden=(key, *hidden),
        )

    async def watched_urls(self) -> set[str]:
        return {watch.url for watch in self._read(_LIST, await self._ask("GET")).values()}

    async def create(self, watch: Mapping[str, Any]) -> str:
        """Returns the watch's id. `watch` is in the words of the API: `url`, `title`, `notification_urls` …

        `ChangedetectionUnavailable.maybe_done`: it may have been created all the same.
        """
        return self._read(_CREATED, await self._ask("POST", watch)).uuid

    def complaint(self, response: Response) -> str:
        """A JSON text, or the `message` of an object."""
        said = response.json()
        words = said.get("message") if isinstance(said, dict) else said
        return words if isinstance(words, str) else ""

    def is_passing(self, response: Response) -> bool:
        is_full = response.status == HTTPStatus.TOO_MANY_REQUESTS and _IS_FULL.search(
            self.complaint(response)
        )
        return not is_full and super().is_passing(response)

    async def _ask(self, method: str, watch: Mapping[str, Any] | None = None) -> Response:
        response = await self.request(method, _WATCHES, watch)
        if 200 <= response.status < 300:
            return response
        reason = self.reason(response)
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            reason = f"{reason.rstrip('.')}. Check CRAWLSCOPE_CHANGEDETECTION_API_KEY."
        elif not reason:
            reason = f": {self.address} is no changedetection.io. Check CRAWLSCOPE_CHANGEDETECTION_URL."
        raise ChangedetectionRefused(
            f"changedetection.io refused ({response.status_line}){reason}", response.status
        )

    def _read(self, shape: TypeAdapter[Shape], response: Response) -> Shape:
        try:
            return shape.validate_json(response.body)
        except ValidationError:
            raise self.failure(
                "answered something else than its API does. Check CRAWLSCOPE_CHANGEDETECTION_URL.",
                maybe_done=True,
            ) from None
