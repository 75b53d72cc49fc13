"""The words that are stored, sent and shown: what a crawl, a page and an operation can be."""

from enum import StrEnum


class CrawlStatus(StrEnum):
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Engine(StrEnum):
    """What runs a crawl that was asked for here."""

    BUILTIN = "builtin"
    FIRECRAWL = "firecrawl"


class ReconcileState(StrEnum):
    """How far a crawl was compared with what Firecrawl says of it."""

    DUE = "due"
    RUNNING = "running"
    """The crawl goes on."""
    SETTLED = "settled"
    INCOMPLETE = "incomplete"
    """Firecrawl does not hand out all of its results."""
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    """Firecrawl knows no such crawl."""
    FAILING = "failing"
    """Firecrawl gave no answer."""

    @property
    def final(self) -> bool:
        """Firecrawl answered, and of a crawl that has ended."""
        return self not in (ReconcileState.DUE, ReconcileState.RUNNING, ReconcileState.FAILING)


class Completeness(StrEnum):
    """How far it is certain that a crawl has all of its pages."""

    OPEN = "open"
    """Its end is not known yet."""
    UNCHECKED = "unchecked"
    """It has ended, and was not compared with Firecrawl since."""
    EXACT = "exact"
    """The built-in crawler tells of the end after its last page was taken in."""
    COMPARED = "compared"
    """Compared with Firecrawl after its end: nothing is missing."""
    INCOMPLETE = "incomplete"
    """Compared with Firecrawl after its end: pages are missing that it does not hand out."""
    FORGOTTEN = "forgotten"
    """Firecrawl no longer knows it: complete as far as was delivered."""
    AS_DELIVERED = "as_delivered"
    """No Firecrawl is set that could be asked: complete as far as was delivered."""


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


class OperationType(StrEnum):
    """What can be measured; all but `webhook`, which belongs to a delivery, belong to a page."""

    WORKER = "worker"
    CHUNKING = "chunking"
    EMBEDDING_WAIT = "embedding_wait"
    """While the embedder worked for other pages and for this one not at all."""
    EMBEDDING = "embedding"
    QDRANT = "qdrant"
    BM25 = "bm25"
    WEBHOOK = "webhook"


class NotificationType(StrEnum):
    """What is told about a crawl."""

    SEARCHABLE = "crawl.searchable"
    FAILED = "crawl.failed"
    STALLED = "crawl.stalled"
    SLOW = "crawl.slow"


class VerdictName(StrEnum):
    """What a crawl that is not sealed is doing."""

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


class NotificationState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class RescrapeStatus(StrEnum):
    """How far a changed page was fetched again; once that is done, its `PageState` stands in its place."""

    WAITING = "waiting"
    """For Firecrawl to be asked."""
    RUNNING = "running"
    REFUSED = "refused"
    """The page may not be fetched."""


class NotRetried(StrEnum):
    """Why a page is not indexed anew."""

    NOT_RECEIVED = "not_received"
    """It failed at the crawler, so its content is not known."""
    DROPPED = "dropped"
    """The cancelled crawl dropped it, so its content is not known."""
    PENDING = "pending"
    """It is queued or being indexed already."""
    NOT_FAILED = "not_failed"
    UNKNOWN = "unknown"
    """The crawl has no page of this URL."""
    NO_URL = "no_url"
    """A failure that named no page."""
    NOT_TAKEN = "not_taken"
    """The crawler takes no such URL, or not as many at once."""

    @property
    def can_be_scraped(self) -> bool:
        return self in (NotRetried.NOT_RECEIVED, NotRetried.DROPPED)
