"""Writes exported pages to stdout, to a file or to a folder."""

import os
import secrets
import shutil
import sys
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from crawlscope.api.client import ServiceClient
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.vocabulary import ExportFormat
from crawlscope.insights.export import markdown_file


class Exported(BaseModel):
    path: str
    format: ExportFormat
    pages: int
    """The number of pages; for a folder, of pages with a text, which have a file each."""


async def print_lines(client: ServiceClient, crawl_id: str) -> None:
    async with client.export(crawl_id, ExportFormat.JSONL) as (_, chunks):
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


async def export_to(client: ServiceClient, crawl_id: str, format: ExportFormat, place: Path) -> Exported:  # noqa: A002
    """Makes `place`, which does not exist, when everything is written. Raises `CrawlscopeError`."""
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        if format is ExportFormat.MARKDOWN:
            pages = await _write_folder(client, crawl_id, part)
        else:
            pages = await _write_file(client, crawl_id, format, part)
        part.rename(place)
    except OSError as error:
        raise CrawlscopeError(f"cannot write {place}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    return Exported(path=str(place), format=format, pages=pages)


async def _write_file(client: ServiceClient, crawl_id: str, format: ExportFormat, part: Path) -> int:  # noqa: A002
    async with client.export(crawl_id, format) as (total, chunks):
        with part.open("wb") as file:
            async for chunk in chunks:
                file.write(chunk)
    return total


async def _write_folder(client: ServiceClient, crawl_id: str, part: Path) -> int:
    written = 0
    make_folder = partial(os.makedirs, exist_ok=True)
    make_folder(part)
    async with aclosing(client.export_pages(crawl_id)) as pages:
        async for page in pages:
            if file := markdown_file(page):
                path = part / file[0]
                make_folder(path.parent)
                path.write_bytes(file[1])
                written += 1
    return written
