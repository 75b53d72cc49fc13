"""The bottleneck of a crawl, its evidence, and the change that helps most: pure rules, no I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crawlscope.core.errors import DatabaseUnavailable, EmbedderUnavailable, IndexUnavailable
from crawlscope.core.vocabulary import Bottleneck, OperationType
from crawlscope.insights.schemas import DiagnosisResponse, Finding, IdleTime, StageTime

MIN_SAVING_MS = 2_000.0
MIN_SAVING_SHARE = 0.1
"""A share of the crawl's time. A smaller saving does not stand out."""
LATE_SECONDS = 2.0
"""A page that is not searchable so long after it was queued is late."""
GIANT_CHUNKS = 128
"""A page with more chunks, and ten times as many as the crawl's usual page, is a giant one."""
DOMINANT_SHARE = 0.5
"""A share of the workers' time."""
SLOW_RESPONSE_MS = 500.0
SLOW_DELIVERY_MS = 2_000.0
"""Between two pages, for a crawler that reports no times of its own."""
MIN_REFUSED_SHARE = 0.05
"""A share of the pages."""
PARTS = (DatabaseUnavailable, EmbedderUnavailable, IndexUnavailable)
PART_OF_CODES = {each.code: each.part for each in PARTS}
_EMBEDDING = (OperationType.EMBEDDING, OperationType.EMBEDDING_WAIT)
_COMPUTING = (OperationType.CHUNKING, OperationType.CHUNKING_WAIT, OperationType.BM25)


@dataclass(frozen=True)
class Giants:
    """Pages with many more chunks than the crawl's usual page."""

    pages: int = 0
    work_ms: float = 0.0
    late_ms: float = 0.0
    """While no other page was late."""
    most_chunks: int = 0
    usual_chunks: float = 0.0


@dataclass(frozen=True)
class BrokenAttempts:
    """Attempts at pages that had to be repeated."""

    number: int = 0
    work_ms: float = 0.0
    late_ms: float = 0.0
    """While no page was late that needed one attempt only."""
    error_code: str | None = None
    """The most frequent one."""


@dataclass(frozen=True)
class SiteTimes:
    """The measurements of the built-in crawler."""

    requests: int
    response_ms: float
    """The sum over all requests."""
    refusals: int
    """Answers that limit the rate of requests."""
    delay_ms: float
    """The sum of the times that requests waited for their turn, as the site asks."""


@dataclass(frozen=True)
class CrawlEvidence:
    """The measured facts about a crawl."""

    wall_ms: float
    late_ms: float
    idle: IdleTime
    busy_ms: float = 0.0
    stages: Mapping[str, StageTime] = field(default_factory=dict)
    """By operation type; the worker's includes the others of a page."""
    received: int = 0
    """Pages."""
    attempts: int = 0
    attempts_ms: float = 0.0
    """Their sum."""
    workers: int = 0
    cores: int = 1
    """The number of the machine's processors."""
    local_embedder: bool = True
    giants: Giants = Giants()
    broken: BrokenAttempts = BrokenAttempts()
    site: SiteTimes | None = None
    refused_pages: int = 0
    """Pages that failed because the site asked for fewer requests."""

    @property
    def unavailable_ms(self) -> dict[str, float]:
        """By part."""
        idle = self.idle
        return {
            DatabaseUnavailable.part: idle.database_ms,
            EmbedderUnavailable.part: idle.embedder_ms,
            IndexUnavailable.part: idle.index_ms,
        }

    @property
    def outage_ms(self) -> float:
        return sum(self.unavailable_ms.values())

    @property
    def repeated_ms(self) -> float:
        """The time in which pages were late because of attempts that were repeated."""
        share = min(1.0, self.broken.work_ms / self.attempts_ms) if self.attempts_ms else 0.0
        return self.broken.late_ms + share * max(0.0, self.late_ms - self.broken.late_ms)

    @property
    def part_that_broke_attempts(self) -> str | None:
        """The part whose outage made most of the broken attempts fail."""
        part = PART_OF_CODES.get(self.broken.error_code or "")
        return part if part and self.unavailable_ms[part] else None

    @property
    def keeping_pace_ms(self) -> float:
        """The time in which no page was late, so that the crawler determined the pace."""
        return max(0.0, self.wall_ms - self.late_ms - self.outage_ms - self.idle.queue_ms)


def diagnosis(crawl_id: str, evidence: CrawlEvidence) -> DiagnosisResponse:
    first, *others = diagnose(evidence)
    return DiagnosisResponse(
        **vars(first),
        crawl_id=crawl_id,
        others=others,
        wall_ms=evidence.wall_ms,
        busy_ms=evidence.busy_ms,
        late_ms=evidence.late_ms,
        idle=evidence.idle,
        stages=dict(evidence.stages),
    )


def diagnose(evidence: CrawlEvidence) -> list[Finding]:
    """The most costly cause first; one finding that says so if nothing stands out."""
    least_ms = max(MIN_SAVING_MS, MIN_SAVING_SHARE * evidence.wall_ms)
    rules = (_outages, _retries, _giant_pages, _stages, _idle_queue, _site)
    found = [each for rule in rules for each in rule(evidence) if (each.saving_ms or 0.0) >= least_ms]
    if found:
        return sorted(found, key=lambda each: -(each.saving_ms or 0.0))
    late, wall = _seconds(evidence.late_ms), _seconds(evidence.wall_ms)
    reason = f"Pages were late for {late} of {wall}."
    numbers = {"wall_ms": evidence.wall_ms, "late_ms": evidence.late_ms}
    return [
        Finding(bound_by=Bottleneck.NOTHING, reason=reason, change=None, saving_ms=None, evidence=numbers)
    ]


def _outages(evidence: CrawlEvidence) -> Iterator[Finding]:
    changes = {
        DatabaseUnavailable.part: "Find out in PostgreSQL's log why it stopped",
        EmbedderUnavailable.part: "Find out why the embedding server stopped",
        IndexUnavailable.part: "Find out in its log why the index stopped",
    }
    for part, ms in evidence.unavailable_ms.items():
        reason = f"The {part} was unavailable for {_seconds(ms)}, and the workers waited for it."
        numbers, saving_ms = {f"{part}_unavailable_ms": ms, "wall_ms": evidence.wall_ms}, ms
        if part == evidence.part_that_broke_attempts:
            reason += f" {_repeated(evidence)}."
            numbers["repeated_attempts"] = evidence.broken.number
            saving_ms += evidence.repeated_ms
        change = f"{changes[part]}; `crawlscope doctor` checks it."
        yield _finding(Bottleneck.OUTAGE, reason, change, saving_ms, numbers)


def _retries(evidence: CrawlEvidence) -> Iterator[Finding]:
    broken = evidence.broken
    if not broken.number or not evidence.attempts_ms or evidence.part_that_broke_attempts:
        return
    code = broken.error_code or "an unknown error"
    reason = f"{_repeated(evidence)}, most often with {code}."
    yield _finding(
        Bottleneck.RETRIES,
        reason,
        f"Remove the cause of {code}; the attempts of each page show its errors.",
        evidence.repeated_ms,
        {
            "repeated_attempts": broken.number,
            "attempts": evidence.attempts,
            "repeated_work_ms": broken.work_ms,
            "late_for_retries_ms": broken.late_ms,
        },
    )


def _repeated(evidence: CrawlEvidence) -> str:
    return f"{evidence.broken.number:,} of {evidence.attempts:,} attempts at pages failed and were repeated"


def _giant_pages(evidence: CrawlEvidence) -> Iterator[Finding]:
    giants = evidence.giants
    if not giants.pages or giants.work_ms < DOMINANT_SHARE * evidence.attempts_ms:
        return
    share = giants.work_ms / evidence.attempts_ms
    reason = (
        f"{giants.pages:,} of {_pages(evidence.received)} took {share:.0%} of the workers' time:"
        f" the largest has {giants.most_chunks:,} chunks, a usual page {giants.usual_chunks:,.0f}."
    )
    yield _finding(
        Bottleneck.GIANT_PAGES,
        reason,
        "Exclude these pages from the crawl if nobody searches them; sort its pages by slowest to see them.",
        max(giants.late_ms, share * evidence.late_ms),
        {
            "giant_pages": giants.pages,
            "giant_work_ms": giants.work_ms,
            "work_ms": evidence.attempts_ms,
            "largest_chunks": giants.most_chunks,
            "usual_chunks": giants.usual_chunks,
        },
    )


def _stages(evidence: CrawlEvidence) -> Iterator[Finding]:
    """While pages are late, the stage with most of the workers' time bounds the crawl."""
    whole_ms = _work_ms(evidence, OperationType.WORKER)
    if not whole_ms:
        return
    embedding_ms, index_ms = _work_ms(evidence, *_EMBEDDING), _work_ms(evidence, OperationType.QDRANT)
    computing_ms = max(_work_ms(evidence, *_COMPUTING), whole_ms - embedding_ms - index_ms)
    late = f"Pages waited or were indexed for {_seconds(evidence.late_ms)}"
    embedder = (
        "Use an embedding server with a GPU (CRAWLSCOPE_EMBEDDER=tei), or more cores."
        if evidence.local_embedder
        else "Give the embedding server more capacity: a GPU, more replicas, or a smaller model."
    )
    workers = f"{evidence.workers:,} {'worker' if evidence.workers == 1 else 'workers'}"
    cores = f"{evidence.cores:,} {'core' if evidence.cores == 1 else 'cores'}"
    more = (
        f"Start more workers (CRAWLSCOPE_WORKERS={min(2 * max(1, evidence.workers), evidence.cores)})."
        if evidence.workers < evidence.cores
        else "Start further workers on another machine, or use one with more cores."
    )
    stages = (
        (Bottleneck.EMBEDDER, embedding_ms, "{} of the workers' time was embedding", embedder),
        (
            *(Bottleneck.INDEX, index_ms, "{} of the workers' time was writing to the index"),
            "Give Qdrant faster disks or more memory, or a machine nearer to the workers.",
        ),
        (
            *(Bottleneck.WORKERS, computing_ms),
            f"{{}} of the time of {workers} on {cores} was reading and cutting text",
            more,
        ),
    )
    for bottleneck, work_ms, words, change in stages:
        share = min(1.0, work_ms / whole_ms)
        if share >= DOMINANT_SHARE:
            yield _finding(
                bottleneck,
                f"{late}, and {words.format(f'{share:.0%}')}.",
                f"{change} The saving assumes twice the speed.",
                share * evidence.late_ms / 2,
                {
                    "stage_work_ms": work_ms,
                    "work_ms": whole_ms,
                    "late_ms": evidence.late_ms,
                    "workers": evidence.workers,
                    "cores": evidence.cores,
                },
            )


def _idle_queue(evidence: CrawlEvidence) -> Iterator[Finding]:
    ms = evidence.idle.queue_ms
    reason = f"Pages waited for {_seconds(ms)} while no worker worked on this crawl."
    change = "Start more workers (CRAWLSCOPE_WORKERS), or run fewer crawls at once."
    numbers = {"idle_queue_ms": ms, "workers": evidence.workers, "wall_ms": evidence.wall_ms}
    yield _finding(Bottleneck.WORKERS, reason, change, ms, numbers)


def _site(evidence: CrawlEvidence) -> Iterator[Finding]:
    """While no page is late, the crawler determines the pace."""
    waiting_ms, site, received = evidence.keeping_pace_ms, evidence.site, max(1, evidence.received)
    known = {"waiting_for_crawler_ms": waiting_ms, "pages": evidence.received}
    if evidence.refused_pages >= MIN_REFUSED_SHARE * received:
        refused = f"The site refused {_pages(evidence.refused_pages)} of {evidence.received:,} (HTTP 429)"
    else:
        refused = ""
    if site is None or not site.requests:
        between_ms = waiting_ms / received
        known |= {"between_pages_ms": between_ms, "refused_pages": evidence.refused_pages}
        if refused:
            yield _finding(Bottleneck.RATE_LIMIT, f"{refused}.", _FEWER, waiting_ms / 2, known)
        elif between_ms >= SLOW_DELIVERY_MS:
            reason = f"The crawler delivered a page every {_seconds(between_ms)}; indexing kept pace."
            yield _finding(Bottleneck.SLOW_SITE, reason, _MORE_AT_ONCE, waiting_ms / 2, known)
        return
    mean_ms, delays_ms = site.response_ms / site.requests, site.delay_ms
    share = delays_ms / (delays_ms + site.response_ms) if delays_ms else 0.0
    known |= {"mean_response_ms": mean_ms, "requests": site.requests}
    known |= {"refusals": site.refusals, "delay_per_request_ms": delays_ms / site.requests}
    if share >= DOMINANT_SHARE or refused:
        refusals = f"{site.refusals:,} answers asked for fewer"
        asked = refusals if site.refusals else "robots.txt requires a delay"
        reason = (
            f"{refused or 'The site limits the rate of requests'}: {asked};"
            f" a request waited {_seconds(delays_ms / site.requests)} for its turn."
        )
        yield _finding(Bottleneck.RATE_LIMIT, reason, _FEWER, share * waiting_ms, known)
    elif mean_ms >= SLOW_RESPONSE_MS:
        reason = f"The site needed {_seconds(mean_ms)} for an answer; indexing kept pace."
        yield _finding(Bottleneck.SLOW_SITE, reason, _MORE_AT_ONCE, (1 - share) * waiting_ms / 2, known)


_FEWER = "Ask the site's owner for a higher limit, or crawl fewer pages at a time."
_MORE_AT_ONCE = (
    "Request more pages at once if the site allows it (CRAWLSCOPE_CRAWL_CONCURRENCY, or Firecrawl's"
    " maxConcurrency). The saving assumes twice the speed."
)


def _finding(
    bound_by: Bottleneck, reason: str, change: str, saving_ms: float, evidence: Mapping[str, float]
) -> Finding:
    return Finding(
        bound_by=bound_by, reason=reason, change=change, saving_ms=saving_ms, evidence=dict(evidence)
    )


def _work_ms(evidence: CrawlEvidence, *types: OperationType) -> float:
    return sum(evidence.stages[each].work_ms for each in types if each in evidence.stages)


def _seconds(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms < 1_000 else f"{ms / 1_000:,.1f} s"


def _pages(number: int) -> str:
    return f"{number:,} {'page' if number == 1 else 'pages'}"
