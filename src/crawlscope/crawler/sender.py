"""Posts events to a running service, and again until a service that restarts has taken them."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import httpx2
import structlog

from crawlscope.core.backoff import backoff
from crawlscope.core.closing import ClosedAtEnd
from crawlscope.core.errors import ServiceUnavailable, UsageError
from crawlscope.core.retry_after import retry_after_seconds
from crawlscope.core.service_file import WEBHOOK_PATH
from crawlscope.core.tls import trusted

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 5.0
_BACKOFF_JITTER = 0.5
_MAX_RETRY_AFTER_SECONDS = 60.0
_ANSWER_SECONDS = 30.0


class DeliveryTooLarge(UsageError):
    """This event, and no other, is refused for its size."""


class WebhookSender(ClosedAtEnd):
    """Posts events to the webhook endpoint of a service; use it as an async context manager.

    `locate` gives the service's address and is asked before each attempt, so that the service may move. While
    the service is unavailable or busy, a delivery is repeated byte for byte for `give_up_after_seconds`.
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
            verify=trusted(),
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, event: dict[str, Any]) -> None:
        """Returns once the service has the event on disk.

        Raises `DeliveryTooLarge` or another `UsageError` when the service refuses it, `ServiceUnavailable`
        when it stays unavailable.
        """
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        deadline = time.monotonic() + self._give_up_after_seconds
        for attempt in count(1):
            endpoint = self._locate().rstrip("/") + WEBHOOK_PATH
            refusal = await self._post(endpoint, body)
            if refusal is None:
                return
            reason, retry_after = refusal
            delay = backoff(
                attempt,
                first_seconds=_FIRST_BACKOFF_SECONDS,
                max_seconds=_MAX_BACKOFF_SECONDS,
                jitter=_BACKOFF_JITTER,
            )
            delay = max(retry_after, delay)
            if time.monotonic() + delay > deadline:
                raise ServiceUnavailable(f"the service at {endpoint} did not take a delivery: {reason}")
            log.debug("delivery_postponed", reason=reason, delay_seconds=round(delay, 2))
            await asyncio.sleep(delay)

    async def _post(self, endpoint: str, body: bytes) -> tuple[str, float] | None:
        """Why the service did not take it, and the seconds that it asks to wait; None when it did."""
        try:
            answer = await self._client.post(endpoint, content=body)
        except httpx2.RequestError as error:
            return str(error) or type(error).__name__, 0.0
        if answer.is_success:
            return None
        reason = f"it answered {answer.status_code}"
        if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            retry_after = retry_after_seconds(answer.headers.get("retry-after")) or 0.0
            return reason, min(retry_after, _MAX_RETRY_AFTER_SECONDS)
        with suppress(ValueError, KeyError, TypeError):
            reason += f" ({' '.join(str(answer.json()['detail']).split())[:200]})"
        too_large = answer.status_code == httpx2.codes.CONTENT_TOO_LARGE
        refusal = DeliveryTooLarge if too_large else UsageError
        raise refusal(f"the service at {endpoint} refused a delivery: {reason}")
