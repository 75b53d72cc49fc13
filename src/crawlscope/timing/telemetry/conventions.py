"""The names, units, labels and buckets of everything that is counted, and the attributes of spans.

Names follow the semantic conventions 1.44 of OpenTelemetry if these have one.

A label has few values, all of them ours: never a URL, a crawl or anything else that a sender chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from crawlscope.core.vocabulary import CrawlStatus, OperationType, PageState

HTTP_STATUS = "http.response.status_code"
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
    """A counter, with buckets a histogram of seconds, or one of the `GAUGES`."""

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
    attributes: tuple[str, ...] = ()
    """The labels' names for OpenTelemetry, if they differ."""


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
    attributes=("http.request.method", "http.route", HTTP_STATUS),
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
COUNTED = (
    *(OPERATIONS, QUEUE_WAITS, PAGES, RETRIES, CHUNKS, DELIVERIES, REFUSALS, REQUESTS),
    *(CRAWLS, CRAWL_DURATIONS, SEARCHABLE, NOTIFICATIONS, LOST, CPU),
)
JOBS = Metric(
    "crawlscope_queue_jobs",
    "crawlscope.queue.jobs",
    "Jobs in the queue, by kind and state.",
    ("queue", "state"),
    unit="{job}",
)
OLDEST_JOB = Metric(
    "crawlscope_queue_oldest_job_age_seconds",
    "crawlscope.queue.oldest_job.age",
    "Age of the oldest job that waits; 0 without one.",
    ("queue",),
    unit="s",
)
CRAWLS_IN_PROGRESS = Metric(
    "crawlscope_crawls_in_progress",
    "crawlscope.crawl.in_progress",
    "Crawls whose end is not known.",
    unit="{crawl}",
)
WAITING = Metric(
    "crawlscope_workers_waiting",
    "crawlscope.worker.waiting",
    "Workers that wait for an unavailable dependency.",
    ("dependency",),
    unit="{worker}",
)
PROCESSES = Metric(
    "crawlscope_processes",
    "crawlscope.process.alive",
    "Processes that report, by kind and version.",
    ("process", "version"),
    unit="{process}",
)
MEMORY_BYTES = Metric(
    "crawlscope_process_memory_bytes",
    "crawlscope.process.memory",
    "Resident memory of these processes.",
    ("process", "version"),
    unit="By",
)
NOTIFICATIONS_PENDING = Metric(
    "crawlscope_notifications_pending",
    "crawlscope.notification.pending",
    "Notifications to be sent.",
    unit="{notification}",
)
DATABASE_BYTES = Metric(
    "crawlscope_database_size_bytes",
    "crawlscope.database.size",
    "Size of the database on disk.",
    unit="By",
)
INDEX_BYTES = Metric(
    "crawlscope_index_size_bytes",
    "crawlscope.index.size",
    "Size of the embedded index on disk.",
    unit="By",
)
INDEX_CHUNKS = Metric(
    "crawlscope_index_chunks", "crawlscope.index.chunks", "Chunks in the serving index.", unit="{chunk}"
)
FREE_BYTES = Metric(
    "crawlscope_data_dir_free_bytes",
    "crawlscope.data_dir.free",
    "Free disk space of the data folder.",
    unit="By",
)
DEPENDENCY_UP = Metric(
    "crawlscope_dependency_up",
    "crawlscope.dependency.up",
    "Whether the answering process can use this dependency.",
    ("dependency",),
)
BUILD = Metric(
    "crawlscope_build_info",
    "crawlscope.build.info",
    "The version of the answering process; always 1.",
    ("version",),
)
GAUGES = (
    *(JOBS, OLDEST_JOB, CRAWLS_IN_PROGRESS, WAITING, PROCESSES, MEMORY_BYTES, NOTIFICATIONS_PENDING),
    *(DATABASE_BYTES, INDEX_BYTES, INDEX_CHUNKS, FREE_BYTES, DEPENDENCY_UP, BUILD),
)
OPERATION_TYPES = frozenset(OperationType)


def metric_attributes(metric: Metric, labels: Sequence[str]) -> dict[str, str | int]:
    """The labels by their names in OpenTelemetry."""
    named: dict[str, str | int] = dict(zip(metric.attributes or metric.labels, labels, strict=True))
    if HTTP_STATUS in named:
        named[HTTP_STATUS] = int(named[HTTP_STATUS])
    return named


def resource_attributes(kind: str, version: str, instance: str) -> dict[str, str]:
    return {
        "service.name": "crawlscope",
        "service.version": version,
        "service.instance.id": instance,
        "crawlscope.process": kind,
    }


def operation_attributes(
    crawl_id: str | None, job_id: str | None, url: str | None, metadata: Mapping[str, Any]
) -> dict[str, str | int | float | bool]:
    ids = {"crawlscope.crawl.id": crawl_id, "crawlscope.job.id": job_id, "url.full": url}
    facts = {f"crawlscope.{name}": value for name, value in metadata.items()}
    return {name: value for name, value in (ids | facts).items() if isinstance(value, str | int | float)}


def request_attributes(method: str, route: str, status: int) -> dict[str, str | int | float | bool]:
    failed = {"error.type": str(status)} if status >= HTTPStatus.INTERNAL_SERVER_ERROR else {}
    return {"http.request.method": method, "http.route": route, HTTP_STATUS: status, **failed}


def embedding_attributes(
    provider: str, model: str, server: str, texts: int
) -> dict[str, str | int | float | bool]:
    return {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "server.address": server,
        "crawlscope.chunks": texts,
    }


def crawl_attributes(session: Mapping[Any, Any]) -> dict[str, str | int | float | bool]:
    """The attributes of a row of `crawl_sessions`."""
    return {
        "crawlscope.crawl.id": session["crawl_id"],
        "url.full": session["crawl_url"],
        "crawlscope.crawl.status": session["status"],
        "crawlscope.crawl.pages": session["total_pages"],
        "crawlscope.crawl.pages_failed": session["pages_failed"],
        "crawlscope.crawl.pages_unchanged": session["pages_unchanged"],
    }
