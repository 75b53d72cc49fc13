"""A program uses the Python client, as its page shows it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import crawlscope
from crawlscope.core.vocabulary import Bottleneck
from tests.support.commands import website
from tests.support.documentation import page, sections
from tests.support.stack import API_SECRET, Stack

PYTHON = {section.title: section for section in sections(page("docs/python.md"), level=2)}


def run_example(title: str, stack: Stack, *arguments: str, **further: str) -> str:
    """The example as a program; returns what it prints."""
    [program] = PYTHON[title].blocks("python")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLSCOPE_")}
    own = {"CRAWLSCOPE_DATA_DIR": str(stack.data_dir), "CRAWLSCOPE_API_SECRET": API_SECRET}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=inherited | own | further,
        timeout=120,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_first_example_prints_what_its_page_says(quick_stack: Stack) -> None:
    state, url = run_example("Index and search", quick_stack).splitlines()
    assert f"`{state}`" in PYTHON["Index and search"].text
    assert f"`{url}`" in PYTHON["Index and search"].text


def test_a_program_crawls_and_reads_the_pages(quick_stack: Stack) -> None:
    with website() as url:
        *lines, last = run_example("Crawl", quick_stack, url).splitlines()
    assert "completed 5 pages" in lines
    assert sum(" indexed " in line for line in lines) == 5
    assert last.split()[0] in set(Bottleneck)


def test_a_program_connects_to_a_url_with_a_key(quick_stack: Stack) -> None:
    key = quick_stack.http.post("/api/keys", json={"name": "reader", "scope": "read"}).json()["key"]
    printed = run_example("Connect", quick_stack, SERVICE_URL=quick_stack.url, SERVICE_KEY=key)
    assert printed.strip().isdigit()


async def test_documents_come_and_go(quick_stack: Stack) -> None:
    url = "https://wiki.example/a page?ä"
    async with crawlscope.connect(quick_stack.url, API_SECRET) as service:
        first = await service.index(url, "# Cassowary\n\nIt runs.", crawl_id="birds")
        again = await service.index(url, "# Cassowary\n\nIt runs.")
        assert (first.state, again.state, again.chunks) == ("indexed", "unchanged", 1)
        for filters in (crawlscope.SearchFilters(crawl_id="birds"), {"crawl_id": "birds"}):
            found = await service.search("cassowary", mode="keyword", filters=filters)
            assert [result.url for result in found.results] == [url]
        with pytest.raises(crawlscope.UsageError, match=r"filters\.crawl"):
            await service.search("cassowary", filters={"crawl": "birds"})
        assert (await service.index("https://wiki.example/blank", "  ")).state == "empty"
        await service.remove(url)
        assert not (await service.search("cassowary", mode="keyword")).results
        with pytest.raises(crawlscope.NotFoundError, match="Document not found"):
            await service.remove(url)


async def test_one_page_is_read_with_its_text(quick_stack: Stack) -> None:
    quick_stack.post_event(
        {
            "type": "crawl.page",
            "id": "one-page",
            "data": [{"markdown": "# A", "metadata": {"sourceURL": "https://a.example/"}}],
        }
    )
    await asyncio.to_thread(quick_stack.settled, "one-page")
    async with crawlscope.connect(quick_stack.url, API_SECRET) as service:
        assert (await service.page("one-page", "https://a.example/")).text == "# A"
        with pytest.raises(crawlscope.NotFoundError, match="Page not found"):
            await service.page("one-page", "https://b.example/")


async def test_errors_say_what_to_do(quick_stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(crawlscope.ServiceUnavailable, match="crawlscope up"):
        async with crawlscope.connect(data_dir=tmp_path):
            pass
    with pytest.raises(crawlscope.SettingsError, match="CRAWLSCOPE_API_SECRET"):
        async with crawlscope.connect(quick_stack.url):
            pass
    with pytest.raises(crawlscope.UsageError, match="give the URL"):
        async with crawlscope.connect(secret="a"):
            pass
    with pytest.raises(crawlscope.UsageError, match="full one"):
        async with crawlscope.connect("localhost:1", "a"):
            pass
    with pytest.raises(crawlscope.ServiceUnavailable, match="does not answer"):
        async with crawlscope.connect("http://127.0.0.1:1", "a"):
            pass
    async with crawlscope.connect(quick_stack.url, "a-guess") as service:
        with pytest.raises(crawlscope.UsageError, match="another API secret"):
            await service.stats()
    async with crawlscope.connect(quick_stack.url, API_SECRET) as service:
        with pytest.raises(crawlscope.UsageError, match="not text"):
            await service.index("https://a.example/image", "\x89PNG\x00\x00\x01" * 200)
        with pytest.raises(crawlscope.UsageError, match="not valid Unicode"):
            await service.index("https://a.example/half", "# A \ud800")
        with pytest.raises(crawlscope.NotFoundError):
            async with service.export("unknown", "jsonl"):
                pass
        with pytest.raises(crawlscope.UsageError, match="at most 8192"):
            await service.index("https://a.example/" + "a" * 9_000, "# A")
        with pytest.raises(crawlscope.UsageError, match="url: must not be empty"):
            await service.index("", "# A")


@pytest.mark.parametrize(
    ("head", "body", "words"),
    [
        ("200 OK", b"<html>", "no Crawlscope"),
        ("200 OK\r\nContent-Encoding: gzip", b"not packed", "does not answer"),
        ("301 Moved\r\nLocation: https://a.example/", b"", "redirects to https://a.example/"),
        ("404 Not Found", b"<html>", "no Crawlscope"),
    ],
)
async def test_what_is_no_service_is_named(head: str, body: bytes, words: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        start = f"HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(start.encode() + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(crawlscope.CrawlscopeError, match=words):
            async with crawlscope.connect(f"http://127.0.0.1:{port}", "a") as service:
                await service.stats()
