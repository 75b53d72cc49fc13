"""Sends notifications, signed as Standard Webhooks."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx2
import structlog
from standardwebhooks import Webhook

from crawlscope import __version__
from crawlscope.core.closing import ClosedAtEnd
from crawlscope.core.retry_after import retry_after_seconds
from crawlscope.core.tls import trusted
from crawlscope.database.engine import Database
from crawlscope.notifications import outbox
from crawlscope.notifications.outbox import Due
from crawlscope.notifications.retry import DELAYS_SECONDS, Reply, delay_before_next
from crawlscope.timing.telemetry import conventions, meters

ANSWER_SECONDS = 20.0
MAX_REASON_LENGTH = 300
ASKS_TO_WAIT = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

log = structlog.get_logger(__name__)


class Receiver(ClosedAtEnd):
    """The server at `NOTIFY_URL`."""

    def __init__(self, url: str, secret: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._url = url
        self._webhook = Webhook(secret)
        self._answer_seconds = answer_seconds
        self._http = httpx2.AsyncClient(
            timeout=answer_seconds,
            follow_redirects=False,
            trust_env=False,
            verify=trusted(),
            headers={"User-Agent": _AGENT},
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def send(self, notification_id: UUID, payload: dict[str, Any]) -> Reply:
        """Returns failures of the receiver and the network, never raises them."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        message_id, now = str(notification_id), datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body),
        }
        try:
            async with asyncio.timeout(self._answer_seconds):
                request = self._http.build_request("POST", self._url, content=body.encode(), headers=headers)
                answer = await self._http.send(request, stream=True)
                await answer.aclose()  # its body may be endless
        except TimeoutError:
            return Reply(None, f"the receiver did not answer within {self._answer_seconds:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            without_secret = why.replace(self._url, "its address")[:MAX_REASON_LENGTH]
            return Reply(None, f"the receiver cannot be reached: {without_secret}")
        return _reply(answer)


async def send_due(
    database: Database, receiver: Receiver, delays_seconds: Sequence[float] = DELAYS_SECONDS
) -> int:
    """Sends the notifications that are due, several at once; returns how many."""

    async def send(due: Due) -> None:
        reply = await receiver.send(due.id, due.payload)
        delay_seconds = delay_before_next(due.attempts, reply, delays_seconds)
        outcome = "delivered" if reply.accepted else "failed" if delay_seconds is not None else "given_up"
        if not reply.accepted:
            event = "notification_failed" if delay_seconds is not None else "notification_given_up"
            log.warning(event, notification_id=str(due.id), attempts=due.attempts, reason=reply.error)
        await database.run(lambda connection: outbox.note_reply(connection, due, reply, delay_seconds))
        meters.count(conventions.NOTIFICATIONS, outcome)

    claimed = await database.run(outbox.claim_due)
    await asyncio.gather(*map(send, claimed))
    return len(claimed)


def _reply(answer: httpx2.Response) -> Reply:
    if answer.is_success:
        return Reply(answer.status_code)
    asked = answer.headers.get("retry-after") if answer.status_code in ASKS_TO_WAIT else None
    said = f"the receiver answered {answer.status_code} {answer.reason_phrase}".rstrip()
    if answer.has_redirect_location:
        said += "; redirects are not followed: set CRAWLSCOPE_NOTIFY_URL to where it leads"
    return Reply(answer.status_code, said, retry_after_seconds(asked))


_AGENT = f"Crawlscope/{__version__}"
