"""The log of notifications: what was told to `NOTIFY_URL`, and how that went."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import case, select

from crawlscope.core.vocabulary import NotificationState, NotificationType
from crawlscope.insights.queries import Rows
from crawlscope.insights.responses import Answer
from crawlscope.models import Notification

_state = case(
    (Notification.delivered_at.is_not(None), NotificationState.DELIVERED.value),
    (Notification.dead, NotificationState.DEAD.value),
    else_=NotificationState.PENDING.value,
).label("state")


class NotificationRow(Answer):
    id: UUID
    """Sent as `webhook-id`."""
    crawl_id: str
    type: NotificationType
    state: NotificationState
    created_at: datetime
    attempts: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    """Null unless it is pending."""
    delivered_at: datetime | None
    last_status: int | None
    """The HTTP status of the last attempt; null where none came."""
    last_error: str | None
    payload: dict[str, Any]


class NotificationListResponse(Answer):
    notifications: list[NotificationRow]
    total: int


def notifications(state: NotificationState | None = None) -> Rows:
    """Newest first."""
    pending = _state == NotificationState.PENDING.value
    matching = select(
        Notification.id,
        Notification.crawl_id,
        Notification.event_type.label("type"),
        _state,
        Notification.created_at,
        Notification.attempts,
        Notification.attempted_at,
        case((pending, Notification.next_attempt_at)).label("next_attempt_at"),
        Notification.delivered_at,
        Notification.last_status,
        Notification.last_error,
        Notification.payload,
    ).order_by(Notification.created_at.desc(), Notification.id.desc())
    return matching if state is None else matching.where(_state == state.value)
