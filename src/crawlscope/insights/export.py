"""All pages of a crawl with their texts, from one snapshot, in memory that does not grow with the crawl."""

import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.insights import queries
from crawlscope.insights.schemas import ExportedPage
from crawlscope.pages.delivered import markdown_of

FETCHED_AT_ONCE = 500
"""Pages without their texts."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""The maximum size of texts, and of bodies that contain them, in memory at once; a larger one is alone."""
MAX_BATCH = 100
MAX_NAME = 80
"""Characters of each part of a file's path: some file systems allow 255 bytes."""
MAX_DEPTH = 8
_UNSAFE = re.compile(r"[^\w.~%@=+,-]+")


async def exported_pages(
    connection: AsyncConnection, crawl_id: str
) -> AsyncGenerator[list[ExportedPage], None]:
    """Batches of pages, in the order in which they were received. `connection` reads one snapshot."""
    rows = await connection.stream(
        queries.pages_to_export(crawl_id).execution_options(yield_per=FETCHED_AT_ONCE)
    )
    async for fetched in rows.mappings().partitions():
        for batch in _batches(fetched):
            found = await connection.execute(queries.texts([row["page_id"] for row in batch]))
            texts = {row["page_id"]: markdown_of(row) for row in found.mappings()}
            yield [_exported(row, texts.get(row["page_id"])) for row in batch]


async def exported_page(connection: AsyncConnection, crawl_id: str, url: str) -> ExportedPage | None:
    """The page with this source URL."""
    found = (await connection.execute(queries.pages_to_export(crawl_id, url))).mappings().one_or_none()
    if found is None:
        return None
    texts = (await connection.execute(queries.texts([found["page_id"]]))).mappings().all()
    return _exported(found, markdown_of(texts[0]) if texts else None)


def markdown_file(page: ExportedPage) -> tuple[str, bytes] | None:
    """A relative path and the content of a page as a Markdown file; None for a page without text.

    Paths are safe on every file system, whatever the URL; those of two pages differ.
    """
    if not page.text:
        return None
    facts = {
        "url": page.url,
        "final_url": page.final_url,
        "title": page.title,
        "language": page.language,
        "state": page.state,
        "settled_at": page.settled_at and page.settled_at.isoformat(),
    }
    head = "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in facts.items())
    return _path(page.url), f"---\n{head}---\n\n{page.text}\n".encode()


def _path(url: str) -> str:
    """Host and path, and a hash of the whole URL, because URLs may differ only in case."""
    try:
        parts = urlsplit(url)
        names = [parts.netloc.rpartition("@")[2], *unquote(parts.path).split("/")]
    except ValueError:
        names = [url]
    safe = [name for name in map(_safe, names) if name][:MAX_DEPTH] or ["page"]
    folders, name = (safe[:-1], safe[-1]) if len(safe) > 1 else (safe, "index")
    return "/".join([*folders, f"{name}-{sha256(url.encode()).hexdigest()[:12]}.md"])


def _safe(name: str) -> str:
    """Without dots at either end, and never one of the names that Windows keeps for itself."""
    cut = _UNSAFE.sub("-", name)[:MAX_NAME].strip(".-")
    while len(cut.encode()) > 2 * MAX_NAME:
        cut = cut[:-1]
    is_reserved = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", cut, re.IGNORECASE)
    return f"_{cut}" if is_reserved else cut


def _batches(rows: Sequence[RowMapping]) -> Iterator[Sequence[RowMapping]]:
    begin = size = 0
    for place, row in enumerate(rows):
        if place > begin and (size + row["bytes_to_read"] > MAX_BATCH_BYTES or place - begin == MAX_BATCH):
            yield rows[begin:place]
            begin, size = place, 0
        size += row["bytes_to_read"]
    if begin < len(rows):
        yield rows[begin:]


def _exported(row: RowMapping, text: str | None) -> ExportedPage:
    stages: dict[str, float] = row["stages"] or {}
    total_ms: float | None = row["total_ms"]
    unaccounted_ms = None if total_ms is None else max(0.0, total_ms - sum(stages.values()))
    fields: dict[str, Any] = {**row, "stages": stages, "unaccounted_ms": unaccounted_ms, "text": text}
    return ExportedPage(**fields)
