"""The export of a crawl as a file: over HTTP, and by the command line's client."""

import asyncio
import io
import json
import random
import sys
import tarfile
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet
import pytest
from sqlalchemy import text

from crawlscope.api.client import PAGES_HEADER, ServiceClient
from crawlscope.api.http import export
from crawlscope.cli.output.exported import export_to
from crawlscope.core.errors import CrawlscopeError, NotFoundError
from crawlscope.core.vocabulary import ExportFormat
from crawlscope.database.engine import Database
from tests.api.http.conftest import Served, Service
from tests.support.producing import A, B, C, deliver, document, index_pages

END_OTHER_CONNECTIONS = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
""")
EXPORT = "/api/crawls/crawl-1/export"
ODD = "Über\u2028lines\x85 and\r\nmore"


async def crawled(database: Database) -> None:
    """An indexed, a failed and a waiting page."""
    await deliver(database, "crawl-1", "crawl.page", [{**document(A), "markdown": ODD}])
    await index_pages(database, "crawl-1")
    await deliver(database, "crawl-1", "crawl.page", [document(B, status_code=404)])
    await deliver(database, "crawl-1", "crawl.page", [document(C)])


async def large(database: Database) -> None:
    """Larger than all buffers between the service and a client, however well it is compressed."""
    for number in range(20):
        words = random.Random(number).randbytes(500_000).hex()
        await deliver(database, "crawl-1", "crawl.page", [{**document(f"{A}{number}"), "markdown": words}])


def made_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*pages*"))


def client_of(served: Served) -> ServiceClient:
    return ServiceClient.of(served.settings, local=False)


async def test_each_page_is_a_line_with_its_text_and_times(database: Database, service: Service):
    await crawled(database)

    answer = await service.http.get(EXPORT)

    pages = [json.loads(line) for line in answer.content.split(b"\n")[:-1]]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers[PAGES_HEADER] == "3"
    assert [(page["url"], page["state"]) for page in pages] == [(A, "indexed"), (B, "failed"), (C, "queued")]
    assert [page["text"] for page in pages] == [ODD, None, document(C)["markdown"]]
    assert set(pages[0]["stages"]) == {"chunking", "embedding", "bm25", "qdrant"}
    assert pages[0]["total_ms"] > 0
    assert pages[1]["error_code"] == "http_404"


async def test_parquet_has_the_same_pages(database: Database, service: Service):
    await crawled(database)
    lines = (await service.http.get(EXPORT)).content.split(b"\n")[:-1]

    answer = await service.http.get(EXPORT, params={"format": "parquet"})

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(answer.content)).to_pylist()
    for row, line in zip(rows, lines, strict=True):
        page = json.loads(line)
        assert {name: row[name] for name in ("url", "state", "text", "chunks", "total_ms")} == {
            name: page[name] for name in ("url", "state", "text", "chunks", "total_ms")
        }
        assert dict(row["stages"]) == page["stages"]


async def test_markdown_is_an_archive_with_a_file_for_each_text(database: Database, service: Service):
    await crawled(database)

    answer = await service.http.get(EXPORT, params={"format": "markdown"})

    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        names = archive.getnames()
        first = archive.extractfile(names[0])
        assert first is not None
        assert ODD in first.read().decode()
    assert [name.split("/")[0] for name in names] == ["a.example", "c.example"]


async def test_an_unknown_crawl_or_format_is_an_ordinary_error(database: Database, service: Service):
    assert (await service.http.get("/api/crawls/nobody/export")).status_code == 404
    assert (await service.http.get(EXPORT, params={"format": "pdf"})).status_code == 422


async def test_without_pyarrow_parquet_says_what_to_install(
    database: Database, service: Service, monkeypatch: pytest.MonkeyPatch
):
    await crawled(database)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    answer = await service.http.get(EXPORT, params={"format": "parquet"})

    assert answer.status_code == 422
    assert "install crawlscope[parquet]" in answer.json()["detail"]


async def test_too_many_exports_at_once_are_refused(
    database: Database, service: Service, monkeypatch: pytest.MonkeyPatch
):
    await crawled(database)
    monkeypatch.setattr(export, "MAX_EXPORTS", 1)
    monkeypatch.setattr(export, "WAIT_SECONDS", 0.3)

    async with service.app.state.exports.turn(export.Taker()):
        refused = await service.http.get(EXPORT)
    allowed = await service.http.get(EXPORT)

    assert (refused.status_code, allowed.status_code) == (503, 200)
    assert "Retry-After" in refused.headers


async def test_a_client_that_takes_nothing_gives_way_to_another(
    database: Database, served: Served, monkeypatch: pytest.MonkeyPatch
):
    await large(database)
    monkeypatch.setattr(export, "MAX_EXPORTS", 1)
    monkeypatch.setattr(export, "PATIENCE_SECONDS", 0.5)
    slow, quick = client_of(served), client_of(served)
    async with slow.export("crawl-1", ExportFormat.JSONL) as (_, first):
        await anext(first)
        pages = [page.url async for page in quick.export_pages("crawl-1")]
        assert len(pages) == 20
        with pytest.raises(httpx2.TransportError):
            async for _ in first:
                pass
    await slow.aclose()
    await quick.aclose()


async def test_an_export_that_cannot_be_completed_is_broken_off(database: Database, served: Served):
    await large(database)
    client = client_of(served)
    for form in ExportFormat:
        async with client.export("crawl-1", form) as (total, chunks):
            assert total == 20
            await anext(chunks)
            async with database.transaction() as connection:
                await connection.execute(END_OTHER_CONNECTIONS)
            with pytest.raises(httpx2.TransportError):
                async for _ in chunks:
                    pass
    await client.aclose()


async def test_the_command_line_writes_a_folder_or_a_file(database: Database, served: Served, tmp_path: Path):
    await crawled(database)
    client, folder, file = client_of(served), tmp_path / "pages", tmp_path / "pages.jsonl"
    others = tmp_path / "pages.part"
    others.mkdir()
    (others / "notes.txt").write_text("of somebody else")

    texts = await export_to(client, "crawl-1", ExportFormat.MARKDOWN, folder)
    lines = await export_to(client, "crawl-1", ExportFormat.JSONL, file)

    assert (texts.pages, lines.pages) == (2, 3)
    assert len(list(folder.rglob("*.md"))) == 2
    assert any(ODD.encode() in path.read_bytes() for path in folder.rglob("*.md"))
    assert [json.loads(line)["url"] for line in file.read_bytes().split(b"\n")[:-1]] == [A, B, C]
    assert made_in(tmp_path) == ["pages", "pages.jsonl", "pages.part"]
    assert [each.name for each in others.iterdir()] == ["notes.txt"]
    await client.aclose()


async def test_nothing_is_left_of_an_export_that_fails(
    database: Database, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    client, place = client_of(served), tmp_path / "pages"
    for form in ExportFormat:
        with pytest.raises(NotFoundError):
            await export_to(client, "crawl-1", form, place)
    await crawled(database)
    with pytest.raises(CrawlscopeError, match=r"cannot write .*: No such file"):
        await export_to(client, "crawl-1", ExportFormat.JSONL, tmp_path / "nowhere" / "x")
    assert made_in(tmp_path) == []
    await client.aclose()


async def test_several_that_wait_hang_up_on_the_same_client():
    taker, seen = export.Taker(), list[str]()

    async def send() -> None:
        async with taker.taking():
            taker.hang_up()
            loop.call_soon(taker.hang_up)  # as the first one is being disconnected
            await asyncio.sleep(60)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["message"]))
    with pytest.raises(TimeoutError):
        await send()
    assert seen == []
