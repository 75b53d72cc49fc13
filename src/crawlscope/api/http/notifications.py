"""The log of notifications over HTTP, and sending one again."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from crawlscope.api.http.parameters import Limit, Offset, ServiceParts
from crawlscope.core.errors import UsageError
from crawlscope.core.vocabulary import NotificationState
from crawlscope.insights.schemas import NotificationListResponse
from crawlscope.insights.service import DEFAULT_LIMIT
from crawlscope.notifications.outbox import send_again

router = APIRouter(prefix="/api/notifications", tags=["notifications"])


class NotificationQueued(BaseModel):
    id: UUID
    state: NotificationState


@router.get("")
async def list_notifications(
    parts: ServiceParts,
    state: NotificationState | None = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> NotificationListResponse:
    """The delivery log, newest first."""
    return await parts.insights.notifications(state, limit, offset)


@router.post("/{notification_id}/resend", status_code=202)
async def resend_notification(notification_id: UUID, parts: ServiceParts) -> NotificationQueued:
    """Sends a notification again, with attempts reset, whatever its state."""
    if parts.settings.notify_url is None:
        raise UsageError("there is no receiver: set CRAWLSCOPE_NOTIFY_URL")
    await parts.database.run(lambda connection: send_again(connection, notification_id))
    return NotificationQueued(id=notification_id, state=NotificationState.PENDING)
