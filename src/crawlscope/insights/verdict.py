"""The state of a crawl that is not sealed, from evidence: pure rules, no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from crawlscope.core.vocabulary import Completeness, VerdictName
from crawlscope.insights.schemas import Verdict

RECENT = timedelta(seconds=60)
"""An event within this time shows that the crawl advances."""
PATIENCE = timedelta(seconds=10)
"""A page that has waited for less shows nothing yet."""
BEGINS_WITHIN = timedelta(seconds=5)
"""An idle crawler begins a crawl within this time."""
STAGES = {"embedder": "embedding", "index": "qdrant"}
"""The stage that needs a part."""


@dataclass(frozen=True)
class PartOutage:
    """A part that workers wait for."""

    part: str
    since: datetime
    reason: str


@dataclass(frozen=True)
class Asked:
    """The result of asking Firecrawl for the crawl so far."""

    failures: int = 0
    """Failed attempts in a row."""
    error: str | None = None
    next_at: datetime | None = None
    running_at: datetime | None = None
    """When Firecrawl last said that the crawl is running."""
    completed: int | None = None
    total: int | None = None

    @classmethod
    def of(cls, check: Mapping[Any, Any] | None) -> "Asked":
        """From the crawl's row of `reconciliations`."""
        if check is None:
            return cls()
        names = ("failures", "error", "running_at", "completed", "total")
        return cls(next_at=check["next_check_at"], **{name: check[name] for name in names})


@dataclass(frozen=True)
class Evidence:
    """The facts about a crawl at `now`."""

    now: datetime
    completeness: Completeness
    last_fact_at: datetime
    last_settled_at: datetime | None
    queued: int
    indexing: int
    oldest_queued_at: datetime | None
    oldest_started_at: datetime | None
    newest_started_at: datetime | None
    """The latest start among the pages that are being indexed."""
    others_settled_at: datetime | None
    """When a page of another crawl settled last."""
    outages: Sequence[PartOutage] = ()
    quiet_seconds: float = 300.0
    """After this time without events a crawl counts as silent."""
    builtin: bool = False
    """Whether the built-in crawler runs it."""
    reservation: str | None = None
    asked: Asked = Asked()
    received: int = 0
    """The pages that were received, in any state."""
    crawler_asked_at: datetime | None = None
    """When the built-in crawler was asked for a crawl that it has not begun."""
    crawls_in_progress: int = 0
    """Other crawls that the built-in crawler works on."""


def judge(evidence: Evidence) -> Verdict:
    """The verdict on a crawl that is not sealed."""
    if evidence.queued or evidence.indexing:
        found = _advancing(evidence) or _held_up(evidence)
        pages = evidence.queued + evidence.indexing
        awaits = f"{pages:,} {'page' if pages == 1 else 'pages'} to be indexed"
        return found.model_copy(update={"awaits": awaits})
    match evidence.completeness:
        case Completeness.INCOMPLETE:
            reason = evidence.reservation or VerdictName.INCOMPLETE
            return _verdict(VerdictName.INCOMPLETE, evidence.last_fact_at, reason)
        case Completeness.FORGOTTEN:
            reason = evidence.reservation or VerdictName.FORGOTTEN
            return _verdict(VerdictName.FORGOTTEN, evidence.last_fact_at, reason)
        case Completeness.OPEN:
            return _open(evidence)
    return _comparing(evidence)


def _advancing(evidence: Evidence) -> Verdict | None:
    now, settled_at = evidence.now, evidence.last_settled_at
    left = f"{evidence.queued + evidence.indexing} to go"
    outage_since = min((each.since for each in evidence.outages), default=None)
    if settled_at and now - settled_at < RECENT and not (outage_since and settled_at < outage_since):
        return _verdict(VerdictName.ADVANCING, settled_at, f"a page settled {_ago(now, settled_at)}, {left}")
    if evidence.outages:
        return None
    began = evidence.newest_started_at
    if began and now - began < RECENT:
        return _verdict(VerdictName.ADVANCING, began, f"a worker began a page {_ago(now, began)}, {left}")
    queued_at = evidence.oldest_queued_at
    if queued_at and not evidence.indexing and now - queued_at < PATIENCE:
        return _verdict(VerdictName.ADVANCING, queued_at, f"pages were queued {_ago(now, queued_at)}")
    return None


def _held_up(evidence: Evidence) -> Verdict:
    now, others, queued_at = evidence.now, evidence.others_settled_at, evidence.oldest_queued_at
    if evidence.outages:
        outage = min(evidence.outages, key=lambda each: each.since)
        reason = f"workers wait for the {outage.part} since {_ago(now, outage.since)}: {outage.reason}"
        stage = STAGES.get(outage.part, outage.part)
        return _verdict(VerdictName.STALLED, outage.since, reason, stage)
    if not evidence.indexing and others and queued_at and now - others < RECENT:
        reason = f"its oldest page was queued {_ago(now, queued_at)}; workers are busy with other crawls"
        return _verdict(VerdictName.STARVED, queued_at, reason)
    if evidence.indexing and evidence.oldest_started_at:
        began = evidence.oldest_started_at
        reason = f"a worker began a page {_ago(now, began)} and has not finished it"
        return _verdict(VerdictName.STALLED, began, reason, "indexing")
    since = queued_at or evidence.last_fact_at
    reason = f"its oldest page was queued {_ago(now, since)} and no worker takes it: is one running?"
    return _verdict(VerdictName.STALLED, since, reason, "queue")


def _open(evidence: Evidence) -> Verdict:
    """No page is pending, and the end is not known."""
    now, last_fact_at, asked = evidence.now, evidence.last_fact_at, evidence.asked
    if evidence.crawler_asked_at and now - evidence.crawler_asked_at >= BEGINS_WITHIN:
        return _not_begun(evidence, evidence.crawler_asked_at)
    said = f"nothing is pending, and the last event arrived {_ago(now, last_fact_at)}"
    if asked.running_at and now - asked.running_at < RECENT:
        said = f"nothing is pending, and Firecrawl said {_ago(now, asked.running_at)} that it still runs"
        completed = asked.completed or 0
        if asked.total:
            said += f": {completed:,} of {asked.total:,} pages scraped"
        lost = completed - evidence.received
        if lost > 0 and now - last_fact_at >= PATIENCE:
            said += f", {lost:,} of them not delivered: does Firecrawl reach CRAWLSCOPE_PUBLIC_URL?"
    elif now - last_fact_at >= timedelta(seconds=evidence.quiet_seconds):
        reason = f"{said}; its end is not known"
        return _verdict(VerdictName.DRAINED, last_fact_at, reason, awaits="news of its end")
    if evidence.builtin:
        return _verdict(VerdictName.WAITING_FOR_CRAWLER, last_fact_at, said, awaits="the crawler to finish")
    return _verdict(VerdictName.WAITING_FOR_FIRECRAWL, last_fact_at, said, awaits="Firecrawl to finish")


def _not_begun(evidence: Evidence, asked_at: datetime) -> Verdict:
    asked = f"the crawler was asked for it {_ago(evidence.now, asked_at)}"
    if others := evidence.crawls_in_progress:
        busy = f"busy with {others:,} other {'crawl' if others == 1 else 'crawls'}"
        awaits = f"its turn: the crawler is {busy}"
        return _verdict(VerdictName.STARVED, asked_at, f"{asked}, and is {busy}", awaits=awaits)
    reason = f"{asked} and has not begun: does a `crawlscope worker` run?"
    return _verdict(VerdictName.WAITING_FOR_CRAWLER, asked_at, reason, awaits="the crawler to begin")


def _comparing(evidence: Evidence) -> Verdict:
    asked = evidence.asked
    said = "its end is known, and it is being compared with Firecrawl"
    if asked.failures and asked.error:
        delay = max(0, round((asked.next_at - evidence.now).total_seconds())) if asked.next_at else 0
        said = f"its end is known, but it could not be compared with Firecrawl yet: {asked.error.rstrip('.')}"
        said += f"; next attempt in {delay:,} s" if delay else "; the next attempt runs"
    elif asked.running_at and asked.running_at > evidence.last_fact_at:
        said = "its end was reported, but Firecrawl says that it still runs"
    awaits = None if evidence.reservation else "the comparison with Firecrawl"
    return _verdict(VerdictName.COMPARING, evidence.last_fact_at, said, awaits=awaits)


def _verdict(
    name: VerdictName, since: datetime, reason: str, stage: str | None = None, awaits: str | None = None
) -> Verdict:
    return Verdict(verdict=name, since=since, stage=stage, reason=reason, awaits=awaits)


def _ago(now: datetime, then: datetime) -> str:
    seconds = max(0, round((now - then).total_seconds()))
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7_200 else f"{seconds // 3_600} h ago"
