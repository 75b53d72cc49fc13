"""The payload of each notification, in the shape of Standard Webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from crawlscope.core.vocabulary import NotificationType
from crawlscope.insights.schemas import Baseline, BaselineNumber, MetExpectation, Verdict
from crawlscope.insights.sealing import Row, Sealing, searchable_at, time_to_searchable_ms

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


def slow(session: Row, usual: BaselineNumber) -> dict[str, Any]:
    found = {"median_ms": round(usual.median, 1), "high_ms": round(usual.high, 1), "runs": usual.runs}
    return _message(NotificationType.SLOW, searchable_at(session), session, baseline=found)


def regressed(session: Row, found: Baseline) -> dict[str, Any]:
    at = searchable_at(session)
    return _message(NotificationType.REGRESSED, at, session, baseline=found.model_dump(mode="json"))


def unexpected(session: Row, unmet: Sequence[MetExpectation]) -> dict[str, Any]:
    listed = [each.model_dump(mode="json", exclude={"met"}) for each in unmet]
    return _message(NotificationType.UNEXPECTED, searchable_at(session), session, unmet=listed)


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
