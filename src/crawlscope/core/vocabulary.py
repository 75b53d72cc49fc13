"""The words that are stored, sent and shown: the states of crawls and pages, the types of operations."""

from enum import StrEnum


class CrawlStatus(StrEnum):
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Engine(StrEnum):
    """The crawler of a requested crawl."""

    BUILTIN = "builtin"
    FIRECRAWL = "firecrawl"


class ReconcileState(StrEnum):
    """How far a crawl was compared with Firecrawl."""

    DUE = "due"
    RUNNING = "running"
    """The crawl is in progress."""
    SETTLED = "settled"
    INCOMPLETE = "incomplete"
    """Firecrawl does not return all of its results."""
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    """Firecrawl knows no such crawl."""
    FAILING = "failing"
    """Firecrawl did not answer."""

    @property
    def final(self) -> bool:
        """Whether Firecrawl answered, and the crawl has ended."""
        return self not in (ReconcileState.DUE, ReconcileState.RUNNING, ReconcileState.FAILING)


class Completeness(StrEnum):
    """How certain it is that a crawl has all of its pages."""

    OPEN = "open"
    """It has not ended yet."""
    UNCHECKED = "unchecked"
    """It has ended, and was not compared with Firecrawl since then."""
    EXACT = "exact"
    """The built-in crawler reports the end after its last page was accepted."""
    COMPARED = "compared"
    """Compared with Firecrawl after its end: nothing is missing."""
    INCOMPLETE = "incomplete"
    """Compared with Firecrawl after its end: it does not return some pages."""
    FORGOTTEN = "forgotten"
    """Firecrawl no longer knows it: it has the pages that were delivered."""
    AS_DELIVERED = "as_delivered"
    """No Firecrawl is configured: it has the pages that were delivered."""


class PageState(StrEnum):
    QUEUED = "queued"
    INDEXING = "indexing"
    INDEXED = "indexed"
    UNCHANGED = "unchanged"
    EMPTY = "empty"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def settled(self) -> bool:
        return self not in (PageState.QUEUED, PageState.INDEXING)

    @property
    def succeeded(self) -> bool:
        return self in (PageState.INDEXED, PageState.UNCHANGED, PageState.EMPTY)


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    MARKDOWN = "markdown"


class ChangeKind(StrEnum):
    """How a page differs from the same page in an earlier crawl; a page can have several."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    """Its text, title or language."""
    NEWLY_FAILED = "newly_failed"
    RECOVERED = "recovered"
    """It failed before."""
    SLOWER = "slower"


class OperationType(StrEnum):
    """The measured operations; `webhook` belongs to a delivery, all others to a page."""

    WORKER = "worker"
    CHUNKING_WAIT = "chunking_wait"
    """While the worker read other pages."""
    CHUNKING = "chunking"
    EMBEDDING_WAIT = "embedding_wait"
    """While the embedder worked for other pages and for this one not at all."""
    EMBEDDING = "embedding"
    QDRANT = "qdrant"
    BM25 = "bm25"
    WEBHOOK = "webhook"


STAGES = (
    OperationType.CHUNKING_WAIT,
    OperationType.CHUNKING,
    OperationType.EMBEDDING_WAIT,
    OperationType.EMBEDDING,
    OperationType.BM25,
    OperationType.QDRANT,
)
"""In the order in which a page passes through them."""
QUEUE_WAIT = "queue_wait"
"""The measured time of a page between its job and its attempt, which is no operation."""
UNACCOUNTED = "unaccounted"
"""The time of an attempt outside all stages, which is no operation either."""


class NotificationType(StrEnum):
    """The facts of a crawl that are notified."""

    SEARCHABLE = "crawl.searchable"
    FAILED = "crawl.failed"
    STALLED = "crawl.stalled"
    SLOW = "crawl.slow"
    REGRESSED = "crawl.regressed"
    """Numbers besides the duration are not as usual."""
    UNEXPECTED = "crawl.unexpected"
    """An expectation of the site is not met."""


class CrawlNumber(StrEnum):
    """The numbers of a crawl that are compared with those of its site's earlier crawls."""

    PAGES = "total_pages"
    FAILED = "failed_percent"
    DURATION = "time_to_searchable_ms"
    CHUNKING = "chunking_ms"
    EMBEDDING = "embedding_ms"
    BM25 = "bm25_ms"
    QDRANT = "qdrant_ms"


class VerdictName(StrEnum):
    """The state of a crawl that is not sealed."""

    ADVANCING = "advancing"
    STARVED = "starved"
    """Its pages wait behind those of other crawls."""
    STALLED = "stalled"
    """Its pages wait, and nothing is being done."""
    WAITING_FOR_FIRECRAWL = "waiting for Firecrawl"
    """All delivered pages are searchable, and more can come."""
    WAITING_FOR_CRAWLER = "waiting for the crawler"
    """The same, for the built-in crawler."""
    DRAINED = "drained"
    """All delivered pages are searchable, nothing has come for long, and the end is not known."""
    COMPARING = "comparing with Firecrawl"
    """It has ended and its pages are settled; Firecrawl is asked whether deliveries were lost."""
    INCOMPLETE = "incomplete"
    """Firecrawl does not return all pages; waiting brings nothing more."""
    FORGOTTEN = "forgotten by Firecrawl"
    """Firecrawl no longer knows the crawl, so its end stays unknown; waiting brings nothing more."""


class NotificationState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class RescrapeStatus(StrEnum):
    """How far a changed page was fetched again; at the end its `PageState` replaces this."""

    WAITING = "waiting"
    """It was not requested from Firecrawl yet."""
    RUNNING = "running"
    REFUSED = "refused"
    """Firecrawl, or a rule here, refused to fetch the page."""


class NotRetried(StrEnum):
    """Why a page is not indexed again."""

    NOT_RECEIVED = "not_received"
    """It failed at the crawler, so its content is not known."""
    DROPPED = "dropped"
    """The crawl was cancelled before it was indexed, so its content is not known."""
    PENDING = "pending"
    """It is queued or being indexed already."""
    NOT_FAILED = "not_failed"
    UNKNOWN = "unknown"
    """The crawl has no page of this URL."""
    NO_URL = "no_url"
    """A failure without a URL."""
    NOT_TAKEN = "not_taken"
    """The crawler does not accept the URL, or not as many URLs at once."""

    @property
    def can_be_scraped(self) -> bool:
        return self in (NotRetried.NOT_RECEIVED, NotRetried.DROPPED)


class Bottleneck(StrEnum):
    """The cause that makes a crawl take longer than any other."""

    EMBEDDER = "embedder"
    INDEX = "index"
    WORKERS = "workers"
    GIANT_PAGES = "giant_pages"
    """A few pages take most of the workers' time."""
    RETRIES = "retries"
    OUTAGE = "outage"
    """A dependency was unavailable."""
    SLOW_SITE = "slow_site"
    RATE_LIMIT = "rate_limit"
    """The site limits requests, by its answers or its robots.txt."""
    NOTHING = "nothing"
    """No single cause stands out."""


class EventKind(StrEnum):
    """The events that a crawl's timeline marks."""

    INITIATED = "initiated"
    STARTED = "started"
    ENDED = "ended"
    SEARCHABLE = "searchable"
    RETRY = "retry"
    """Pages waited for another attempt."""
    WORKER_DEATH = "worker_death"
    OUTAGE = "outage"
    RECONCILIATION = "reconciliation"
    ACTION = "action"
    """An operator did something."""
