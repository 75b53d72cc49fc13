"""Carries events to a running service and does not lose them when it restarts."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx2
import structlog

from crawlscope.core.errors import ServiceUnavailable, UsageError
from crawlscope.core.retry_after import retry_after_seconds
from crawlscope.core.service_file import WEBHOOK_PATH

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_RETRY_AFTER_SECONDS = 60.0
_ANSWER_SECONDS = 30.0


class DeliveryTooLarge(UsageError):
    """This event, and no other, is refused for its size."""


class WebhookSender:
    """Posts events to the webhook door of a service; use it as an async context manager.

    `locate` gives the service's address and is asked before each try, so that the service may move. While it
    is away or busy a delivery is repeated, byte for byte, for `give_up_after_seconds`.
    """

    def __init__(
        self, locate: Callable[[], str], api_secret: str, *, give_up_after_seconds: float = 600.0
    ) -> None:
        self._locate = locate
        self._give_up_after_seconds = give_up_after_seconds
        self._client = httpx2.AsyncClient(
            headers={"X-API-Secret": api_secret, "Content-Type": "application/json"},
            timeout=_ANSWER_SECONDS,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, event: dict[str, Any]) -> None:
        """Returns once the service has the event on disk.

        Raises `DeliveryTooLarge` or another `UsageError` when the service refuses it, `ServiceUnavailable`
        when it stays away.
        """
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        deadline = time.monotonic() + self._give_up_after_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            door = self._locate().rstrip("/") + WEBHOOK_PATH
            outcome = await self._post(door, body)
            if outcome is None:
                return
            wait_seconds = max(outcome.wait_seconds, pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
            if time.monotonic() + wait_seconds > deadline:
                raise ServiceUnavailable(f"the service at {door} did not take a delivery: {outcome.reason}")
            log.debug("delivery_postponed", reason=outcome.reason, wait_seconds=round(wait_seconds, 2))
            await asyncio.sleep(wait_seconds)
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _post(self, door: str, body: bytes) -> "_Postponed | None":
        try:
            answer = await self._client.post(door, content=body)
        except httpx2.RequestError as error:
            return _Postponed(str(error) or type(error).__name__)
        if answer.is_success:
            return None
        reason = f"it answered {answer.status_code}"
        if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            wait_seconds = retry_after_seconds(answer.headers.get("retry-after")) or 0.0
            return _Postponed(reason, min(wait_seconds, _LONGEST_RETRY_AFTER_SECONDS))
        too_large = answer.status_code == httpx2.codes.CONTENT_TOO_LARGE
        refusal = DeliveryTooLarge if too_large else UsageError
        raise refusal(f"the service at {door} refused a delivery: {reason}{_detail(answer)}")


class _Postponed:
    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        self.reason = reason
        self.wait_seconds = wait_seconds


def _detail(answer: httpx2.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({' '.join(str(detail).split())[:200]})"
