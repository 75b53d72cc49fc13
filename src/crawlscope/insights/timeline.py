"""Assembles the timeline of a crawl from the events of each bucket: pure, no I/O."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from crawlscope.core.vocabulary import EventKind
from crawlscope.insights.schemas import TimelineBucket, TimelineEvent, TimelineResponse

Row = Mapping[Any, Any]
MIN_SECONDS = 0.001
"""A crawl of one event has a length too, so that it has a bucket."""


@dataclass(frozen=True)
class Span:
    """The time of a crawl, divided into buckets of equal length."""

    began_at: datetime
    ended_at: datetime
    buckets: int

    @classmethod
    def of(cls, session: Row, now: datetime, buckets: int) -> "Span":
        """Ends with the crawl's last event, or now while pages are pending. `session` is its row."""
        began_at: datetime = session["started_at"]
        if session["initiated_at"] is not None:
            began_at = min(began_at, session["initiated_at"])
        ends = [session[name] for name in ("completed_at", "last_settled_at", "last_fact_at")]
        ended_at = now if session["pages_pending"] else max(at for at in ends if at is not None)
        return cls(began_at, max(ended_at, began_at + timedelta(seconds=MIN_SECONDS)), buckets)

    @property
    def bucket_seconds(self) -> float:
        return (self.ended_at - self.began_at).total_seconds() / self.buckets


@dataclass(frozen=True)
class TimelineRows:
    """Rows of `course_queries`, each kind by its statement."""

    pages: Iterable[Row]
    stages: Iterable[Row]
    moves: Iterable[Row]
    broken: Iterable[Row] = ()
    actions: Iterable[Row] = ()
    outages: Iterable[Row] = ()
    check: Row | None = None
    """The crawl's row of `reconciliations`."""


@dataclass
class _Bucket:
    pages: dict[str, int] = field(default_factory=lambda: {"received": 0, "indexed": 0, "failed": 0})
    stages: dict[str, float] = field(default_factory=dict)
    queued: int = 0
    indexing: int = 0


def timeline(session: Row, span: Span, happened: TimelineRows) -> TimelineResponse:
    return TimelineResponse(
        crawl_id=session["crawl_id"],
        began_at=span.began_at,
        ended_at=span.ended_at,
        bucket_seconds=span.bucket_seconds,
        buckets=_buckets(span, happened),
        events=sorted(_events(session, span, happened), key=lambda event: event.at),
    )


def _buckets(span: Span, happened: TimelineRows) -> list[TimelineBucket]:
    found: defaultdict[int, _Bucket] = defaultdict(_Bucket)
    for row in happened.pages:
        found[row["bucket"]].pages[row["what"]] = row["number"]
    for row in happened.stages:
        found[row["bucket"]].stages[row["operation_type"]] = row["ms"]
    for row in happened.moves:
        found[row["bucket"]].queued, found[row["bucket"]].indexing = row["queued"], row["indexing"]
    seconds, queued, indexing, buckets = span.bucket_seconds, 0, 0, []
    for number in range(span.buckets):
        each = found[number]
        queued, indexing = queued + each.queued, indexing + each.indexing
        buckets.append(
            TimelineBucket(
                at=span.began_at + timedelta(seconds=number * seconds),
                **each.pages,
                **{f"{name}_per_second": pages / seconds for name, pages in each.pages.items()},
                queued=max(0, queued),
                indexing=max(0, indexing),
                stages=each.stages,
            )
        )
    return buckets


def _events(session: Row, span: Span, happened: TimelineRows) -> Iterable[TimelineEvent]:
    moments = (
        (session["initiated_at"], EventKind.INITIATED, "requested"),
        (session["started_at"], EventKind.STARTED, "first event"),
        (session["completed_at"], EventKind.ENDED, f"crawl {session['status'].replace('_', ' ')}"),
    )
    for at, kind, what in moments:
        if at is not None:
            yield TimelineEvent(at=at, kind=kind, what=what)
    if session["completed_at"] and session["last_settled_at"] and not session["pages_pending"]:
        yield TimelineEvent(
            at=session["last_settled_at"], kind=EventKind.SEARCHABLE, what="the last page settled"
        )
    for row in happened.broken:
        died = row["outcome"] in ("crashed", "lost")
        kind = EventKind.WORKER_DEATH if died else EventKind.RETRY
        what = row["error_code"] or row["outcome"]
        yield TimelineEvent(at=row["at"], kind=kind, what=what, count=row["number"])
    for row in happened.actions:
        yield TimelineEvent(at=row["at"], kind=EventKind.ACTION, what=row["action"])
    for row in happened.outages:
        what = f"{row['part']} unavailable: {row['reason']}"
        since, until = max(row["since"], span.began_at), row.get("until")
        yield TimelineEvent(at=since, until=until, kind=EventKind.OUTAGE, what=what)
    check = happened.check
    if check is not None and check["checked_at"] is not None:
        what = f"compared with Firecrawl: {check['state']}"
        yield TimelineEvent(
            at=check["checked_at"], kind=EventKind.RECONCILIATION, what=what, count=check["checks"]
        )
