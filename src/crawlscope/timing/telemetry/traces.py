"""Traces: a trace per crawl, one per page, linked to the trace of its crawl, and one per HTTP request.

Spans are made when they have ended, from the same measurements that are stored. A crawl continues the trace
of its initiator (W3C `traceparent`); otherwise its ids follow from its own id, so that every process knows
them. Without a tracer in use nothing is made.
"""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from time import time
from typing import Protocol
from urllib.parse import urlsplit

from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import OperationType
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.telemetry import conventions

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.{0,200})?",
    re.ASCII,
)
Attributes = Mapping[str, str | int | float | bool]


class Kind(Enum):
    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    CONSUMER = "consumer"


@dataclass(frozen=True)
class SpanContext:
    """Names a span, also one of another process."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    def child(self) -> "SpanContext":
        return SpanContext(self.trace_id, _new_span_id(), self.sampled)


@dataclass(frozen=True)
class Span:
    """One that has ended; times are seconds since 1970."""

    name: str
    context: SpanContext
    began: float
    ended: float
    parent: SpanContext | None = None
    kind: Kind = Kind.INTERNAL
    links: Sequence[SpanContext] = ()
    attributes: Attributes = field(default_factory=dict)
    error: str | None = None


class Tracer(Protocol):
    def samples(self, trace_id: int) -> bool: ...

    def export(self, span: Span) -> None:
        """Never blocks and never raises: what cannot be sent is dropped."""
        ...


@dataclass(frozen=True)
class Trace:
    """The trace that the work in progress belongs to."""

    span: SpanContext
    """The span of the page's attempt, or of the request."""
    crawl: SpanContext | None = None
    queued_at: datetime | None = None


class _Process:
    """The state of this module, for the life of the process."""

    tracer: Tracer | None = None


_current: ContextVar[Trace | None] = ContextVar("crawlscope_trace", default=None)


@contextmanager
def use(tracer: Tracer) -> Iterator[None]:
    before, _Process.tracer = _Process.tracer, tracer
    try:
        yield
    finally:
        _Process.tracer = before


def in_use() -> bool:
    return _Process.tracer is not None


def current() -> Trace | None:
    return _current.get()


def parsed(traceparent: object) -> SpanContext | None:
    """None if it is no valid W3C `traceparent`."""
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    return SpanContext(int(found["trace"], 16), int(found["span"], 16), bool(int(found["flags"], 16) & 1))


def propagated(traceparent: str | None) -> str | None:
    """The context for work that this work starts: its own, else the valid one of its client."""
    if trace := _current.get():
        return trace.span.traceparent
    given = (traceparent or "").strip()
    return given if parsed(given) else None


def crawl_context(crawl_id: str, traceparent: object) -> SpanContext:
    """The span of the crawl, in the trace of the initiator's `traceparent` if there is one."""
    key, initiator = hash_key("crawl", crawl_id).int, parsed(traceparent)
    span_id = key & 0xFFFF_FFFF_FFFF_FFFF or 1
    if initiator:
        return SpanContext(initiator.trace_id, span_id, initiator.sampled)
    trace_id = hash_key("trace", crawl_id).int
    return SpanContext(trace_id, span_id, _samples(trace_id))


@contextmanager
def page(
    crawl_id: str, page_id: int, revision: int, queued_at: datetime | None, traceparent: object
) -> Iterator[None]:
    """Operations in the block are spans of the page's trace. All attempts at a page share one."""
    if _Process.tracer is None:
        yield
        return
    crawl = crawl_context(crawl_id, traceparent)
    trace_id = hash_key("page", crawl_id, str(page_id), str(revision)).int
    sampled = crawl.sampled and (parsed(traceparent) is not None or _samples(trace_id))
    with _within(Trace(SpanContext(trace_id, _new_span_id(), sampled), crawl, queued_at)):
        yield


@contextmanager
def request(traceparent: str | None) -> Iterator[Trace | None]:
    """Operations in the block are spans of the request's trace, which continues its client's trace."""
    if _Process.tracer is None:
        yield None
        return
    if client := parsed(traceparent):
        span = client.child()
    else:
        trace_id = secrets.randbits(128) or 1
        span = SpanContext(trace_id, _new_span_id(), _samples(trace_id))
    trace = Trace(span)
    with _within(trace):
        yield trace


@contextmanager
def shared_request(works: Sequence[Trace], name: str, attributes: Attributes) -> Iterator[SpanContext | None]:
    """A request to a server for the works of several pages or requests, which the server can continue.

    It is shared, and so no part of one page's trace: its span is in the trace of the first page's crawl, and
    linked to every page. None without a tracer.
    """
    if _Process.tracer is None or not works:
        yield None
        return
    parent, error = works[0].crawl or works[0].span, None
    span, began = parent.child(), time()
    try:
        yield span
    except BaseException as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        links = [work.span for work in works if work.crawl]
        export(Span(name, span, began, time(), parent, Kind.CLIENT, links, attributes, error))


def operation_ended(operation: Measurement) -> None:
    trace = _current.get() if _Process.tracer is not None else None
    if trace is None:
        return
    whole = operation.operation_type == OperationType.WORKER
    began, queued_at = operation.timestamp, trace.queued_at
    ended = began + operation.duration_ms / 1000
    attributes = conventions.operation_attributes(
        operation.crawl_id, operation.job_id, _shown_url(operation.document_url), operation.metadata
    )
    if whole and queued_at:
        queued = min(queued_at.timestamp(), began)
        export(Span("queue_wait", trace.span.child(), queued, began, trace.span))
        began = queued
    export(
        Span(
            f"{operation.operation_type} {operation.operation_name}",
            trace.span if whole else trace.span.child(),
            began,
            ended,
            parent=None if whole else trace.span,
            kind=Kind.CONSUMER if whole else Kind.INTERNAL,
            links=[trace.crawl] if whole and trace.crawl else (),
            attributes=attributes,
            error=None if operation.success else operation.error_message or conventions.ERROR,
        )
    )


def export(span: Span) -> None:
    if _Process.tracer is not None and span.context.sampled:
        _Process.tracer.export(span)


@contextmanager
def _within(trace: Trace) -> Iterator[None]:
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def _samples(trace_id: int) -> bool:
    return _Process.tracer is not None and _Process.tracer.samples(trace_id)


def _new_span_id() -> int:
    return secrets.randbits(64) or 1


def _shown_url(url: str | None) -> str | None:
    """Without user name and password."""
    if url is None or "@" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
