"""The tables: crawls, pages and measurements."""

from crawlscope.models.access import ApiKey
from crawlscope.models.base import SCHEMA, Base, table_of
from crawlscope.models.changes import ChangeEvent
from crawlscope.models.counts import RowCount
from crawlscope.models.crawls import CrawlFact, CrawlRequest, CrawlSession, DeletedCrawl, Reconciliation
from crawlscope.models.deliveries import Delivery, UnknownEvent
from crawlscope.models.indexes import Document, DocumentContent, DocumentCrawl, IndexGeneration, IndexWord
from crawlscope.models.metrics import (
    ChangedHour,
    HourHistogram,
    OperationHistogram,
    OperationMetric,
    PrunedOperations,
    RequestMetric,
)
from crawlscope.models.notifications import Notification, Notifying
from crawlscope.models.pages import Outage, Page, PageAttempt, PageContent, PastOutage
from crawlscope.models.telemetry import MetricTotal, Process

__all__ = [
    "SCHEMA",
    "ApiKey",
    "Base",
    "ChangeEvent",
    "ChangedHour",
    "CrawlFact",
    "CrawlRequest",
    "CrawlSession",
    "DeletedCrawl",
    "Delivery",
    "Document",
    "DocumentContent",
    "DocumentCrawl",
    "HourHistogram",
    "IndexGeneration",
    "IndexWord",
    "MetricTotal",
    "Notification",
    "Notifying",
    "OperationHistogram",
    "OperationMetric",
    "Outage",
    "Page",
    "PageAttempt",
    "PageContent",
    "PastOutage",
    "Process",
    "PrunedOperations",
    "Reconciliation",
    "RequestMetric",
    "RowCount",
    "UnknownEvent",
    "table_of",
]
