"""The pages of a crawl as a file: JSON Lines, Parquet, or an archive of Markdown files."""

import asyncio
import gzip
import importlib
import io
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Protocol

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from crawlscope.api.client import PAGES_HEADER
from crawlscope.api.http.parameters import Segment, ServiceParts
from crawlscope.core.errors import CrawlscopeError, ServiceUnavailable, UsageError
from crawlscope.core.in_thread import in_thread
from crawlscope.core.vocabulary import ExportFormat
from crawlscope.insights.export import markdown_file
from crawlscope.insights.schemas import ExportedPage
from crawlscope.insights.service import Insights

MAX_EXPORTS = 4
"""At once: each holds a connection to the database."""
WAIT_SECONDS = 30.0
"""For the end of another export."""
PATIENCE_SECONDS = 10.0
"""An export that has waited so long for its client gives way to one that waits for its turn."""
POLL_SECONDS = 0.2
STALLED_SECONDS = 120
"""A client that takes nothing for so long is disconnected: it holds a connection to the database."""
MEDIA_TYPES = {
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
    ExportFormat.MARKDOWN: "application/gzip",
}

router = APIRouter(prefix="/api/crawls", tags=["crawls"])
log = structlog.get_logger(__name__)


@router.get("/{crawl_id}/export", response_class=StreamingResponse)
async def export_crawl(
    crawl_id: Segment,
    parts: ServiceParts,
    request: Request,
    format: ExportFormat = ExportFormat.JSONL,  # noqa: A002 - the parameter's name
) -> StreamingResponse:
    """All pages of the crawl with their texts, as they are at this moment."""
    taker, exports = Taker(), request.app.state.exports
    stream = _exported(exports.turn(taker), parts.insights, crawl_id, WRITERS[format]())
    total = int(await anext(stream))
    suffix = "tar.gz" if format is ExportFormat.MARKDOWN else format.value
    headers = {
        PAGES_HEADER: str(total),
        "Content-Disposition": f'attachment; filename="crawl.{suffix}"',
        "X-Content-Type-Options": "nosniff",
    }
    return _File(stream, taker, media_type=MEDIA_TYPES[format], headers=headers)


class Taker:
    """The client of an export: how long the export has waited for it to take what is there."""

    def __init__(self) -> None:
        self._waited_seconds = 0.0
        self._sending_since: float | None = None
        self._limit: asyncio.Timeout | None = None

    @property
    def waited_seconds(self) -> float:
        now = time.monotonic()
        return self._waited_seconds + (now - self._sending_since if self._sending_since else 0.0)

    @asynccontextmanager
    async def taking(self) -> AsyncIterator[None]:
        """Raises `TimeoutError` if the client takes nothing for too long, or its connection was closed."""
        self._sending_since = time.monotonic()
        try:
            async with asyncio.timeout(STALLED_SECONDS) as self._limit:
                yield
        finally:
            self._waited_seconds, self._sending_since, self._limit = self.waited_seconds, None, None

    def hang_up(self) -> None:
        """Has no effect while the export does not wait for the client, or its connection was closed."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0.0)


class Exports:
    """Some at once. While others wait for their turn, the slowest client has to give way."""

    def __init__(self) -> None:
        self._running: list[Taker] = []

    @asynccontextmanager
    async def turn(self, taker: Taker) -> AsyncIterator[None]:
        """Raises `ServiceUnavailable` if no other export ends in time."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self._running) >= MAX_EXPORTS:
            if time.monotonic() > deadline:
                raise ServiceUnavailable(f"{MAX_EXPORTS} exports run already: try again when one has ended")
            slowest = max(self._running, key=lambda each: each.waited_seconds)
            if slowest.waited_seconds > PATIENCE_SECONDS:
                slowest.hang_up()
            await asyncio.sleep(POLL_SECONDS)
        self._running.append(taker)
        try:
            yield
        finally:
            self._running.remove(taker)


class Writer(Protocol):
    """Turns pages into the bytes of a file. Without those of the end, a reader sees that it is not whole;
    in a format without an end, the connection shows it."""

    def write(self, pages: Sequence[ExportedPage]) -> bytes: ...

    def end(self) -> bytes: ...


class JsonLines:
    """A page a line."""

    def write(self, pages: Sequence[ExportedPage]) -> bytes:
        return "".join(f"{page.model_dump_json()}\n" for page in pages).encode()

    def end(self) -> bytes:
        return b""


class MarkdownArchive:
    """A compressed tar archive with a file for each page that has a text."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._compressed = gzip.GzipFile(fileobj=self._sink, mode="wb", compresslevel=6)
        self._archive: Any = tarfile.open(fileobj=self._compressed, mode="w|")  # noqa: SIM115

    def write(self, pages: Sequence[ExportedPage]) -> bytes:
        for page in pages:
            if file := markdown_file(page):
                name, content = file
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = len(content), int(page.received_at.timestamp())
                self._archive.addfile(entry, io.BytesIO(content))
        self._archive.members.clear()  # it would keep every entry until the end
        return _taken(self._sink)

    def end(self) -> bytes:
        self._archive.close()
        self._compressed.close()
        return _taken(self._sink)


class Parquet:
    """A row group for each batch, compressed with Zstandard. Needs the optional package `pyarrow`."""

    def __init__(self) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise UsageError(
                "Parquet needs the package pyarrow in the service: "
                "install crawlscope[parquet], or export as jsonl"
            ) from None
        self._schema = self._arrow.schema(_parquet_columns(self._arrow))
        self._sink = io.BytesIO()
        self._writer = parquet.ParquetWriter(_Appending(self._sink), self._schema, compression="zstd")

    def write(self, pages: Sequence[ExportedPage]) -> bytes:
        rows = [{**page.model_dump(), "stages": list(page.stages.items())} for page in pages]
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))
        return _taken(self._sink)

    def end(self) -> bytes:
        self._writer.close()
        return _taken(self._sink)


WRITERS: dict[ExportFormat, type[JsonLines] | type[MarkdownArchive] | type[Parquet]] = {
    ExportFormat.JSONL: JsonLines,
    ExportFormat.PARQUET: Parquet,
    ExportFormat.MARKDOWN: MarkdownArchive,
}


class _File(StreamingResponse):
    """Breaks the connection off if the file cannot be completed, so that no part of it looks whole."""

    def __init__(self, stream: AsyncGenerator[bytes, None], taker: Taker, **options: Any) -> None:
        super().__init__(stream, **options)
        self._stream = stream
        self._taker = taker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with self._taker.taking():
                await send(message)

        async with aclosing(self._stream):
            try:
                await super().__call__(scope, receive, send_in_time)
            except (CrawlscopeError, TimeoutError) as error:
                log.warning(
                    "export_aborted",
                    reason=str(error) or "the client takes nothing, or less than others that wait",
                )


async def _exported(
    turn: AbstractAsyncContextManager[None], insights: Insights, crawl_id: str, writer: Writer
) -> AsyncGenerator[bytes, None]:
    """The number of pages in digits, then the bytes of the file."""
    async with turn, insights.exported(crawl_id) as (total, batches):
        yield str(total).encode()
        async for pages in batches:
            yield await in_thread(writer.write, pages)
        yield await in_thread(writer.end)


def _taken(sink: io.BytesIO) -> bytes:
    """The bytes that were written since the last call."""
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written


class _Appending(io.RawIOBase):
    """A file that is only appended to, of which the written bytes are taken away meanwhile."""

    def __init__(self, sink: io.BytesIO) -> None:
        self._sink = sink
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._sink.write(data)
        self._size += written
        return written

    def tell(self) -> int:
        return self._size


def _parquet_columns(arrow: Any) -> list[tuple[str, Any]]:
    text, moment, milliseconds = arrow.string(), arrow.timestamp("us", tz="UTC"), arrow.float64()
    texts = ("url", "final_url", "state", "error_code", "error", "error_detail", "title", "language", "text")
    return [
        *((name, text) for name in texts),
        *((name, arrow.int64()) for name in ("attempts", "status_code", "chunks")),
        *((name, moment) for name in ("received_at", "queued_at", "settled_at")),
        *((name, milliseconds) for name in ("queue_wait_ms", "total_ms", "unaccounted_ms")),
        ("stages", arrow.map_(text, milliseconds)),
    ]
