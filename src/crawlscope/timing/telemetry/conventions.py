"""The names, units, labels and buckets of everything that is counted, in one place.

A label has few values, all of them ours: never a URL, a crawl or anything else that a sender chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crawlscope.core.vocabulary import CrawlStatus, OperationType, PageState

OTHER = "other"
"""The value of a label for everything that has no value of its own."""
SUCCESS, ERROR = "success", "error"
STAGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""As the semantic conventions of OpenTelemetry advise for HTTP."""
WAIT_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0)
CRAWL_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)


@dataclass(frozen=True, eq=False)
class Metric:
    """A counter, or with buckets a histogram of seconds."""

    name: str
    """For Prometheus; a counter is shown with `_total`."""
    otel: str
    """For OpenTelemetry."""
    help: str
    labels: tuple[str, ...] = ()
    known: Sequence[str] = ()
    """Values of the first label that are shown from the start, so that the first event is an increase."""
    buckets: tuple[float, ...] = ()
    """Upper bounds; one more bucket is for everything greater."""
    unit: str = "1"


OPERATIONS = Metric(
    "crawlscope_operation_duration_seconds",
    "crawlscope.operation.duration",
    "Duration of measured operations, by type (worker is a whole attempt at a page) and outcome.",
    ("operation", "outcome"),
    buckets=STAGE_SECONDS,
    unit="s",
)
QUEUE_WAITS = Metric(
    "crawlscope_page_queue_wait_seconds",
    "crawlscope.page.queue_wait.duration",
    "Time of a page between its job and its attempt.",
    buckets=WAIT_SECONDS,
    unit="s",
)
PAGES = Metric(
    "crawlscope_pages_settled",
    "crawlscope.page.settled",
    "Pages that were settled, by their state. A page that is delivered or retried again counts again.",
    ("state",),
    known=[state for state in PageState if state.settled],
    unit="{page}",
)
RETRIES = Metric(
    "crawlscope_page_attempts_retried",
    "crawlscope.page.attempt.retried",
    "Attempts after which the page was put back into the queue.",
    unit="{attempt}",
)
CHUNKS = Metric(
    "crawlscope_chunks_embedded",
    "crawlscope.chunk.embedded",
    "Chunks of text that the embedder turned into vectors.",
    unit="{chunk}",
)
DELIVERIES = Metric(
    "crawlscope_deliveries",
    "crawlscope.delivery.accepted",
    "Accepted deliveries, by the status of the answer.",
    ("status",),
    known=("queued", "acknowledged", "duplicate", "ignored"),
    unit="{delivery}",
)
REFUSALS = Metric(
    "crawlscope_deliveries_refused",
    "crawlscope.delivery.refused",
    "Refused deliveries, by cause.",
    ("cause",),
    unit="{delivery}",
)
REQUESTS = Metric(
    "crawlscope_http_request_duration_seconds",
    "http.server.request.duration",
    "Duration of HTTP requests, by the route's template.",
    ("http_request_method", "http_route", "http_response_status_code"),
    buckets=REQUEST_SECONDS,
    unit="s",
)
CRAWLS = Metric(
    "crawlscope_crawls_ended",
    "crawlscope.crawl.ended",
    "Crawls that have ended, with all of their pages settled; each counts once.",
    ("status",),
    known=[status for status in CrawlStatus if status is not CrawlStatus.IN_PROGRESS],
    unit="{crawl}",
)
CRAWL_DURATIONS = Metric(
    "crawlscope_crawl_duration_seconds",
    "crawlscope.crawl.duration",
    "Time from the start to the end of crawls, as their crawler reports it.",
    buckets=CRAWL_SECONDS,
    unit="s",
)
SEARCHABLE = Metric(
    "crawlscope_crawl_time_to_searchable_seconds",
    "crawlscope.crawl.time_to_searchable",
    "Time from the request or start of crawls until all of their pages were settled.",
    buckets=CRAWL_SECONDS,
    unit="s",
)
NOTIFICATIONS = Metric(
    "crawlscope_notification_attempts",
    "crawlscope.notification.attempt",
    "Attempts to send a notification, by outcome.",
    ("outcome",),
    known=("delivered", "failed", "given_up"),
    unit="{attempt}",
)
LOST = Metric(
    "crawlscope_measurements_lost",
    "crawlscope.measurement.lost",
    "Measurements outside of pages that were dropped, because the database was unavailable for long.",
    unit="{measurement}",
)
CPU = Metric(
    "crawlscope_process_cpu_seconds",
    "crawlscope.process.cpu.time",
    "CPU time of the processes that use the database, by kind of process.",
    ("process",),
    unit="s",
)
ALL = (
    *(OPERATIONS, QUEUE_WAITS, PAGES, RETRIES, CHUNKS, DELIVERIES, REFUSALS, REQUESTS),
    *(CRAWLS, CRAWL_DURATIONS, SEARCHABLE, NOTIFICATIONS, LOST, CPU),
)
OPERATION_TYPES = frozenset(OperationType)
