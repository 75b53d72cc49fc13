"""What a crawl that is not sealed is doing, and on what evidence: pure rules, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from crawlscope.core.vocabulary import Completeness

RECENT = timedelta(seconds=60)
"""Something that happened within this time says that things go on."""
PATIENCE = timedelta(seconds=10)
"""A page that has waited for less says nothing yet."""
BEGINS_WITHIN = timedelta(seconds=5)
"""A crawler that has nothing else to do has begun by then."""
STAGES = {"embedder": "embedding", "index": "qdrant"}
"""The stage in which a part is needed."""


class VerdictName(StrEnum):
    ADVANCING = "advancing"
    STARVED = "starved"
    """Its pages wait behind those of other crawls."""
    STALLED = "stalled"
    """Its pages wait, and nothing is being done."""
    WAITING_FOR_FIRECRAWL = "waiting for Firecrawl"
    """All that was delivered is searchable, and more can come."""
    WAITING_FOR_CRAWLER = "waiting for the crawler"
    """The same of the built-in crawler."""
    DRAINED = "drained"
    """All that was delivered is searchable, nothing has come for long, and the end is not known."""
    COMPARING = "comparing with Firecrawl"
    """It has ended and its pages are settled; whether deliveries were lost is being found out."""
    INCOMPLETE = "incomplete"
    """Pages are missing that Firecrawl does not hand out: waiting brings nothing more."""
    FORGOTTEN = "forgotten by Firecrawl"
    """Its end is not known, and nobody will tell: waiting brings nothing more."""


@dataclass(frozen=True)
class PartAway:
    """A part that workers wait for."""

    part: str
    since: datetime
    reason: str


@dataclass(frozen=True)
class Asked:
    """What asking Firecrawl has brought so far."""

    failures: int = 0
    """Tries in a row that got no answer, or not all of it."""
    error: str | None = None
    next_at: datetime | None = None
    running_at: datetime | None = None
    """When it said last that the crawl goes on."""
    completed: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Evidence:
    """What is known of a crawl at `now`."""

    now: datetime
    completeness: Completeness
    last_fact_at: datetime
    last_settled_at: datetime | None
    queued: int
    indexing: int
    oldest_queued_at: datetime | None
    oldest_started_at: datetime | None
    newest_started_at: datetime | None
    """Of the pages that are being indexed."""
    others_settled_at: datetime | None
    """When a page of another crawl settled last."""
    parts_away: Sequence[PartAway] = ()
    quiet_seconds: float = 300.0
    """How long a crawl may be silent before that says something."""
    builtin: bool = False
    """Whether the built-in crawler runs it."""
    reservation: str | None = None
    asked: Asked = Asked()
    received: int = 0
    """Pages that came of it, in whatever state."""
    crawler_asked_at: datetime | None = None
    """Since when the built-in crawler, which has not begun it, is asked for."""
    crawls_in_hand: int = 0
    """Other crawls that it works on meanwhile."""


@dataclass(frozen=True)
class Judgement:
    name: VerdictName
    since: datetime
    reason: str
    """A sentence with the evidence in it."""
    stage: str | None = None
    """Where it is stalled: `queue`, `indexing`, or the stage whose part is away."""
    awaits: str | None = None
    """What is waited for; None where waiting brings nothing more."""


def judge(evidence: Evidence) -> Judgement:
    """Of a crawl that is not sealed."""
    if evidence.queued or evidence.indexing:
        found = _advancing(evidence) or _away(evidence) or _starved(evidence) or _stalled(evidence)
        pages = evidence.queued + evidence.indexing
        return replace(found, awaits=f"{pages:,} {'page' if pages == 1 else 'pages'} to be indexed")
    match evidence.completeness:
        case Completeness.INCOMPLETE:
            return _given_up(VerdictName.INCOMPLETE, evidence)
        case Completeness.FORGOTTEN:
            return _given_up(VerdictName.FORGOTTEN, evidence)
        case Completeness.OPEN:
            return _silent(evidence)
    return _comparing(evidence)


def _advancing(evidence: Evidence) -> Judgement | None:
    now, settled_at = evidence.now, evidence.last_settled_at
    away_since = min((part.since for part in evidence.parts_away), default=None)
    if settled_at and now - settled_at < RECENT and not (away_since and settled_at < away_since):
        return Judgement(
            VerdictName.ADVANCING, settled_at, f"a page settled {_ago(now, settled_at)}, {_left(evidence)}"
        )
    if evidence.parts_away:
        return None
    if evidence.newest_started_at and now - evidence.newest_started_at < RECENT:
        began = evidence.newest_started_at
        return Judgement(
            VerdictName.ADVANCING, began, f"a worker began a page {_ago(now, began)}, {_left(evidence)}"
        )
    queued_at = evidence.oldest_queued_at
    if queued_at and not evidence.indexing and now - queued_at < PATIENCE:
        return Judgement(VerdictName.ADVANCING, queued_at, f"pages were queued {_ago(now, queued_at)}")
    return None


def _away(evidence: Evidence) -> Judgement | None:
    if not evidence.parts_away:
        return None
    part = min(evidence.parts_away, key=lambda each: each.since)
    return Judgement(
        VerdictName.STALLED,
        part.since,
        f"workers wait for the {part.part} since {_ago(evidence.now, part.since)}: {part.reason}",
        STAGES.get(part.part, part.part),
    )


def _starved(evidence: Evidence) -> Judgement | None:
    others, queued_at = evidence.others_settled_at, evidence.oldest_queued_at
    if evidence.indexing or not others or not queued_at or evidence.now - others >= RECENT:
        return None
    return Judgement(
        VerdictName.STARVED,
        queued_at,
        f"its oldest page was queued {_ago(evidence.now, queued_at)}; workers are busy with other crawls",
    )


def _stalled(evidence: Evidence) -> Judgement:
    if evidence.indexing and evidence.oldest_started_at:
        began = evidence.oldest_started_at
        reason = f"a worker began a page {_ago(evidence.now, began)} and has not finished it"
        return Judgement(VerdictName.STALLED, began, reason, "indexing")
    since = evidence.oldest_queued_at or evidence.last_fact_at
    reason = f"its oldest page was queued {_ago(evidence.now, since)} and no worker takes it: is one running?"
    return Judgement(VerdictName.STALLED, since, reason, "queue")


def _not_begun(evidence: Evidence, asked_at: datetime) -> Judgement:
    asked = f"the crawler was asked for it {_ago(evidence.now, asked_at)}"
    if others := evidence.crawls_in_hand:
        busy = f"busy with {others:,} other {'crawl' if others == 1 else 'crawls'}"
        awaits = f"its turn: the crawler is {busy}"
        return Judgement(VerdictName.STARVED, asked_at, f"{asked}, and is {busy}", awaits=awaits)
    said = f"{asked} and has not begun: does a `crawlscope worker` run?"
    return Judgement(VerdictName.WAITING_FOR_CRAWLER, asked_at, said, awaits="the crawler to begin")


def _silent(evidence: Evidence) -> Judgement:
    asked_at = evidence.crawler_asked_at
    if asked_at and evidence.now - asked_at >= BEGINS_WITHIN:
        return _not_begun(evidence, asked_at)
    heard = evidence.last_fact_at
    said = f"nothing is pending, and the crawler was last heard of {_ago(evidence.now, heard)}"
    running = evidence.asked.running_at
    if running and evidence.now - running < RECENT:
        said = f"nothing is pending, and Firecrawl said {_ago(evidence.now, running)} that it goes on"
        if evidence.asked.total:
            said += f": {evidence.asked.completed or 0:,} of {evidence.asked.total:,} pages scraped"
        lost = (evidence.asked.completed or 0) - evidence.received
        if lost > 0 and evidence.now - heard >= PATIENCE:
            said += f", {lost:,} of them not delivered: does Firecrawl reach CRAWLSCOPE_PUBLIC_URL?"
    elif evidence.now - heard >= timedelta(seconds=evidence.quiet_seconds):
        awaits = "news of its end"
        return Judgement(VerdictName.DRAINED, heard, f"{said}; its end is not known", awaits=awaits)
    if evidence.builtin:
        return Judgement(VerdictName.WAITING_FOR_CRAWLER, heard, said, awaits="the crawler to finish")
    return Judgement(VerdictName.WAITING_FOR_FIRECRAWL, heard, said, awaits="Firecrawl to finish")


def _comparing(evidence: Evidence) -> Judgement:
    asked = evidence.asked
    said = "its end is known, and it is being compared with Firecrawl"
    if asked.failures and asked.error:
        pause = max(0, round((asked.next_at - evidence.now).total_seconds())) if asked.next_at else 0
        said = f"its end is known, but it could not be compared with Firecrawl yet: {asked.error.rstrip('.')}"
        said += f"; next try in {pause:,} s" if pause else "; being tried again"
    elif asked.running_at and asked.running_at > evidence.last_fact_at:
        said = "its end was told, but Firecrawl says that it goes on"
    awaits = None if evidence.reservation else "the comparison with Firecrawl"
    return Judgement(VerdictName.COMPARING, evidence.last_fact_at, said, awaits=awaits)


def _given_up(name: VerdictName, evidence: Evidence) -> Judgement:
    return Judgement(name, evidence.last_fact_at, evidence.reservation or name)


def _left(evidence: Evidence) -> str:
    return f"{evidence.queued + evidence.indexing} to go"


def _ago(now: datetime, then: datetime) -> str:
    seconds = max(0, round((now - then).total_seconds()))
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7_200 else f"{seconds // 3_600} h ago"
