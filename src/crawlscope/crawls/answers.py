"""What acting on a crawl answers, over HTTP and to whoever asks through it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from crawlscope.vocabulary import CrawlStatus, ReconcileState


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    crawl_id: str


class CrawlStarted(_Answer):
    crawl_url: str
    status: str


class CrawlCancelled(_Answer):
    cancelled: bool


class PagesQueued(_Answer):
    queued: int


class CrawlReconciled(_Answer):
    status: CrawlStatus
    added: int
    """Pages that were fetched, and queued to be indexed."""
    failed: int
    cancelled: int
    state: ReconcileState
    note: str | None
    """Why it is not settled, or what stays missing."""


class CountDifference(BaseModel):
    was: Any
    counted: Any


class CrawlRecounted(_Answer):
    changed: dict[str, CountDifference]
    """By column of `crawl_sessions`; empty where everything was right."""
