"""Parts die and come back; every page that was accepted is indexed, once."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from crawlscope.database.embedded import EmbeddedPostgres
from tests.fakes.embedding_server import FakeEmbeddingServer
from tests.journeys.stack import (
    Stack,
    eventually,
    new_crawl_id,
    page_event,
    running_stack,
    stack_environment,
    started_stack,
)

PAGES = 30


@pytest.fixture
def embedder():
    with FakeEmbeddingServer() as server:
        server.delay_seconds = 0.05
        yield server


def post_pages(stack: Stack, crawl_id: str, numbers: range) -> None:
    for number in numbers:
        event = page_event(crawl_id, f"https://example.com/{number}", markdown=f"# Page {number}\n\nText.")
        eventually(partial(_posted, stack, event), lambda status: status == 202)


def _posted(stack: Stack, event: dict[str, Any]) -> int:
    try:
        return stack.post_event(event).status_code
    except httpx2.TransportError:
        return 0


def children_of(stack: Stack) -> dict[str, psutil.Process]:
    """By what they were started as: `serve`, `index`, `crawl`."""
    found = psutil.Process(stack.process.pid).children(recursive=True)
    commands = {process: command_of(process) for process in found}
    return {words[-1]: process for process, words in commands.items() if "crawlscope" in words}


def command_of(process: psutil.Process) -> list[str]:
    """Empty for one that is gone or about to be."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def test_what_is_killed_comes_back_and_no_page_is_lost(tmp_path: Path, embedder) -> None:
    crawl_id = new_crawl_id()
    settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    with running_stack(tmp_path / "data", **settings) as stack:
        post_pages(stack, crawl_id, range(PAGES))
        before = children_of(stack)
        before["index"].send_signal(signal.SIGKILL)
        eventually(lambda: children_of(stack).get("index"), lambda it: it not in (None, before["index"]))
        crawl = stack.settled(crawl_id, seconds=90)
        assert (crawl["total_pages"], crawl["pages_indexed"], crawl["pages_failed"]) == (PAGES, PAGES, 0)
        assert crawl["operations"]["embedding"]["count"] == PAGES


def test_killed_itself_it_leaves_nothing_behind_and_goes_on_when_started_again(
    tmp_path: Path, embedder
) -> None:
    crawl_id, data_dir = new_crawl_id(), tmp_path / "data"
    settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    with started_stack(data_dir, **settings) as stack:
        post_pages(stack, crawl_id, range(PAGES))
        stack.process.kill()
        stack.process.wait()
        eventually(lambda: processes_of(data_dir), lambda it: not it, seconds=30)
    with running_stack(data_dir, **settings) as stack:
        crawl = stack.settled(crawl_id, seconds=90)
        assert (crawl["total_pages"], crawl["pages_indexed"]) == (PAGES, PAGES)
        assert {page["state"] for page in stack.pages(crawl_id)} == {"indexed"}
    eventually(lambda: processes_of(data_dir), lambda it: not it)


def processes_of(data_dir: Path) -> list[str]:
    """Every process that was started for this data folder, the database's too."""
    return [
        " ".join(command_of(process))
        for process in psutil.process_iter()
        if process.pid != os.getpid() and str(data_dir) in _traces(process)
    ]


def _traces(process: psutil.Process) -> str:
    try:
        return " ".join([*process.cmdline(), process.environ().get("CRAWLSCOPE_DATA_DIR", "")])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def test_without_its_database_the_door_refuses_and_afterwards_takes_everything(
    tmp_path: Path, embedder
) -> None:
    server = EmbeddedPostgres(tmp_path / "database")
    settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    crawl_id = new_crawl_id()
    try:
        with running_stack(tmp_path / "data", DATABASE_URL=server.acquire(), **settings) as stack:
            post_pages(stack, crawl_id, range(3))
            stack.settled(crawl_id)
            server.release()

            refused = stack.post_event(page_event(crawl_id, "https://example.com/3"))
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "database" in refused.json()["detail"]
            assert stack.http.get("/api/metrics/crawls").status_code == 503
            assert stack.http.get("/readyz").status_code == 503
            assert stack.http.get("/healthz").status_code == 200
            assert stack.http.get("/health").json()["status"] == "failing"

            server.acquire()
            post_pages(stack, crawl_id, range(3, 6))
            crawl = stack.settled(crawl_id, seconds=60)
            assert (crawl["total_pages"], crawl["pages_indexed"]) == (6, 6)
    finally:
        server.release()


def test_without_its_embedder_pages_wait_and_none_fails(tmp_path: Path, embedder) -> None:
    crawl_id = new_crawl_id()
    settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    with running_stack(tmp_path / "data", **settings) as stack:
        post_pages(stack, crawl_id, range(100, 101))
        stack.settled(crawl_id)
        embedder.fail_with(503)
        post_pages(stack, crawl_id, range(3))
        eventually(
            lambda: [page["attempts"] for page in stack.pages(crawl_id)], lambda tries: min(tries) >= 1
        )
        assert stack.crawl(crawl_id)["pages_pending"] == 3
        assert stack.http.post("/api/search", json={"query": "text"}).status_code == 503
        embedder.fail_with(None)
        crawl = stack.settled(crawl_id, seconds=60)
        assert (crawl["pages_indexed"], crawl["pages_failed"]) == (4, 0)


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = stack_environment(tmp_path / "data", PORT=port)
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "crawlscope", "up"],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode in (1, 2)
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 45
    assert processes_of(tmp_path / "data") == []
