"""The payload of each notification, in the shape of Standard Webhooks."""

from datetime import UTC, datetime
from typing import Any

from crawlscope.core.vocabulary import NotificationType
from crawlscope.insights.schemas import Verdict
from crawlscope.insights.sealing import Row, Sealing, searchable_at, time_to_searchable_ms
from crawlscope.notifications.baseline import Baseline

COPIED = (
    "crawl_id",
    "crawl_url",
    "status",
    "started_at",
    "completed_at",
    "duration_ms",
    "total_pages",
    "pages_indexed",
    "pages_failed",
    "pages_pending",
    "pages_unchanged",
    "error_message",
)


def searchable(session: Row, sealing: Sealing) -> dict[str, Any]:
    certain = {"completeness": sealing.completeness.value, "reservation": sealing.reservation}
    return _message(NotificationType.SEARCHABLE, searchable_at(session), session, **certain)


def failed(session: Row) -> dict[str, Any]:
    return _message(NotificationType.FAILED, session["completed_at"], session)


def slow(session: Row, baseline: Baseline) -> dict[str, Any]:
    usual = {"median_ms": round(baseline.median_ms, 1), "runs": baseline.runs}
    return _message(NotificationType.SLOW, searchable_at(session), session, baseline=usual)


def stalled(session: Row, verdict: Verdict) -> dict[str, Any]:
    since, stage, reason = verdict.since.isoformat(), verdict.stage, verdict.reason
    return _message(
        NotificationType.STALLED,
        datetime.now(UTC),
        session,
        verdict={"since": since, "stage": stage, "reason": reason},
    )


def _message(
    event_type: NotificationType, at: datetime | None, session: Row, **further: Any
) -> dict[str, Any]:
    facts = {name: session[name] for name in COPIED}
    facts |= {
        "searchable_at": searchable_at(session),
        "time_to_searchable_ms": time_to_searchable_ms(session),
    }
    data = {name: _plain(value) for name, value in facts.items()}
    return {"type": event_type.value, "timestamp": _plain(at), "data": data | further}


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
