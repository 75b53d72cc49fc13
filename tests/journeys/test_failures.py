"""Failure handling: processes and dependencies fail and recover; every accepted page is indexed, once."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import psutil
import pytest

from crawlscope.core import service_file
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.processes.worker.index_pages import PAGES_AT_ONCE
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.postgres import server_pid
from tests.support.stack import (
    Stack,
    eventually,
    new_crawl_id,
    page_event,
    running_stack,
    stack_environment,
    started_stack,
)

PAGES = 30
PAGE_TIMEOUT_SECONDS = 3


@pytest.fixture(scope="module")
def server() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as server:
        yield server


@pytest.fixture
def embedder(server: FakeEmbeddingServer) -> Iterator[FakeEmbeddingServer]:
    """Without faults before and after each test."""
    server.delay_seconds = 0.05
    yield server
    server.fail_with(None)
    server.broken_by = server.stuck_on = None


@pytest.fixture(scope="module")
def stack(server: FakeEmbeddingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        "WORKERS": "2",
        "EMBEDDER": "tei",
        "EMBEDDER_URL": server.url,
        "PAGE_TIMEOUT_SECONDS": str(PAGE_TIMEOUT_SECONDS),
    }
    with running_stack(tmp_path_factory.mktemp("failures") / "data", **settings) as running:
        yield running


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[str]:
    with database_of(stack.data_dir) as url:
        yield url


@contextmanager
def database_of(data_dir: Path) -> Iterator[str]:
    server = EmbeddedPostgres(data_dir)
    try:
        yield server.acquire()
    finally:
        server.release()


def rows(url: str, statement: str, *arguments: object) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(url)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def attempts_of(url: str, crawl_id: str) -> list[dict[str, Any]]:
    """The attempts at all its pages, in the order of their start."""
    return rows(
        url,
        "SELECT source_url AS page, worker, outcome, attempts.error_code, attempts.error"
        " FROM webhook.page_attempts attempts JOIN webhook.pages ON pages.id = page_id"
        " WHERE crawl_id = $1 ORDER BY attempts.started_at",
        crawl_id,
    )


def unavailable_dependencies(url: str) -> set[str]:
    return {row["part"] for row in rows(url, "SELECT part FROM webhook.outages")}


def post_page(stack: Stack, crawl_id: str, name: str) -> str:
    url = f"https://example.com/{name}"
    event = page_event(crawl_id, url, markdown=f"# Page {name}\n\nText of {name} in {crawl_id}.")
    eventually(partial(_posted, stack, event), lambda status: status == 202)
    return url


def post_pages(stack: Stack, crawl_id: str, numbers: range) -> None:
    for number in numbers:
        post_page(stack, crawl_id, str(number))


def _posted(stack: Stack, event: dict[str, Any]) -> int:
    try:
        return stack.post_event(event).status_code
    except httpx2.TransportError:
        return 0


KINDS = {
    ("index",): "index",
    ("serve", "--without-index"): "api",
    ("worker", "--only", "index"): "worker",
    ("worker", "--only", "crawl"): "crawler",
}
"""By the words of the command."""


def children_of(stack: Stack) -> dict[str, psutil.Process]:
    found = psutil.Process(stack.process.pid).children(recursive=True)
    commands = {process: command_of(process) for process in found}
    return {
        KINDS[tuple(words[words.index("crawlscope") + 1 :])]: process
        for process, words in commands.items()
        if "crawlscope" in words
    }


def command_of(process: psutil.Process) -> list[str]:
    """Empty for one that is gone or about to be."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


@pytest.mark.slow
def test_what_is_killed_comes_back_and_no_page_is_lost(tmp_path: Path, embedder) -> None:
    crawl_id = new_crawl_id()
    settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    with running_stack(tmp_path / "data", **settings) as stack:
        post_pages(stack, crawl_id, range(PAGES))
        eventually(lambda: stack.pages(crawl_id, state="indexing"), bool)
        before = children_of(stack)
        before["worker"].send_signal(signal.SIGKILL)
        eventually(lambda: children_of(stack).get("worker"), lambda it: it not in (None, before["worker"]))
        crawl = stack.settled(crawl_id, seconds=90)
        assert (crawl["total_pages"], crawl["pages_indexed"], crawl["pages_failed"]) == (PAGES, PAGES, 0)
        assert crawl["operations"]["embedding"]["count"] == PAGES


@pytest.mark.slow
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


@pytest.mark.slow
def test_without_its_database_the_endpoint_refuses_and_afterwards_accepts_everything(
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


def test_an_outage_of_the_embedder_costs_a_page_one_attempt_and_is_named(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    embedder.fail_with(503)
    post_pages(stack, crawl_id, range(PAGES))
    eventually(lambda: unavailable_dependencies(database), lambda parts: parts == {"embedder"})
    asked = len(embedder.requests)
    time.sleep(4)  # however long it lasts
    assert len(embedder.requests) - asked < 15
    assert stack.http.post("/api/search", json={"query": "text"}).status_code == 503
    [reason] = {row["reason"] for row in rows(database, "SELECT reason FROM webhook.outages")}
    assert "answered 503" in reason
    assert stack.http.get("/health").json()["parts"]["embedder"] == {"state": "failing", "detail": reason}
    assert stack.crawl(crawl_id)["pages_pending"] == PAGES

    embedder.fail_with(None)
    crawl = stack.settled(crawl_id, seconds=60)
    assert (crawl["pages_indexed"], crawl["pages_failed"]) == (PAGES, 0)
    assert max(page["attempts"] for page in stack.pages(crawl_id)) <= 2
    assert sum(page["attempts"] for page in stack.pages(crawl_id)) <= PAGES + 2 * 2
    eventually(lambda: unavailable_dependencies(database), lambda parts: not parts)
    assert stack.http.get("/health").json()["status"] == "ok"


def kill(stack: Stack, kind: str) -> None:
    with suppress(KeyError, psutil.NoSuchProcess):  # between its end and its restart
        children_of(stack)[kind].kill()


def test_without_the_index_process_deliveries_are_accepted_and_workers_wait(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    kill(stack, "index")
    post_pages(stack, crawl_id, range(PAGES))
    search = partial(stack.http.post, "/api/search", json={"query": "text", "mode": "keyword"})

    def found_while_killing() -> tuple[int, set[str]]:
        kill(stack, "index")
        return search().status_code, unavailable_dependencies(database)

    eventually(found_while_killing, lambda found: found[0] == 503 and "index" in found[1])
    attempts = eventually(
        lambda: attempts_of(database, crawl_id), lambda them: _all_indexed(them, PAGES), 120
    )
    assert max(Counter(attempt["page"] for attempt in attempts).values()) <= 2
    eventually(lambda: unavailable_dependencies(database), lambda parts: not parts)
    assert search().json()["results"]


def test_the_index_stays_open_while_the_api_process_restarts(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    post_pages(stack, crawl_id, range(PAGES))
    before = children_of(stack)
    before["api"].kill()
    attempts = eventually(
        lambda: attempts_of(database, crawl_id), lambda them: _all_indexed(them, PAGES), 120
    )
    assert len(attempts) == PAGES
    assert not unavailable_dependencies(database)
    service = eventually(
        lambda: service_file.read(stack.data_dir), lambda it: it is not None and it.pid != before["api"].pid
    )
    assert service is not None
    stack.move_to(service.url)
    eventually(lambda: stack.http.get("/health").json()["status"], lambda it: it == "ok")
    assert stack.search("text", mode="keyword", filters={"crawl_id": crawl_id})["total"] == PAGES
    assert children_of(stack)["index"].pid == before["index"].pid


def _all_indexed(attempts: list[dict[str, Any]], pages: int) -> bool:
    return sum(attempt["outcome"] == "indexed" for attempt in attempts) == pages


@pytest.mark.slow
def test_a_killed_database_comes_back_and_work_goes_on(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    embedder.delay_seconds = 0.3
    post_pages(stack, crawl_id, range(PAGES))
    server = server_pid(stack.data_dir)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    eventually(lambda: stack.http.get("/readyz").status_code, lambda status: status == 200)
    assert server_pid(stack.data_dir) != server
    crawl = stack.settled(crawl_id, seconds=90)
    assert (crawl["total_pages"], crawl["pages_indexed"]) == (PAGES, PAGES)
    assert {attempt["outcome"] for attempt in attempts_of(database, crawl_id)} <= {
        "indexed",
        "lost",
        "retried",
    }


def test_a_page_that_breaks_the_embedder_delays_no_other(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    embedder.broken_by = "cursed"
    cursed = [post_page(stack, crawl_id, f"cursed-{number}") for number in range(2)]
    eventually(lambda: attempts_of(database, crawl_id), lambda them: len(them) >= 4)
    post_pages(stack, crawl_id, range(PAGES))
    crawl = eventually(lambda: stack.crawl(crawl_id), lambda it: it["pages_pending"] <= len(cursed))
    assert (crawl["pages_indexed"], crawl["pages_failed"]) == (PAGES, 0)
    tries = [attempt for attempt in attempts_of(database, crawl_id) if attempt["page"] in cursed]
    assert {attempt["error_code"] for attempt in tries if attempt["outcome"]} == {"embedder_unavailable"}
    assert len(tries) < 16
    embedder.broken_by = None
    assert stack.settled(crawl_id)["pages_indexed"] == PAGES + len(cursed)


def test_a_page_that_kills_workers_is_set_aside_and_no_other(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    embedder.stuck_on = "poison"
    post_pages(stack, crawl_id, range(5))
    poison = post_page(stack, crawl_id, "poison")
    post_pages(stack, crawl_id, range(5, PAGES))
    killed: list[str] = []
    while stack.crawl(crawl_id)["pages_failed"] == 0:
        attempts = attempts_of(database, crawl_id)
        at_it = [each["worker"] for each in attempts if each["page"] == poison and not each["outcome"]]
        for worker in set(at_it) - set(killed):
            killed.append(worker)
            os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
    crawl = stack.settled(crawl_id)
    assert (crawl["pages_indexed"], crawl["pages_failed"]) == (PAGES, 1)
    [page] = [page for page in stack.pages(crawl_id) if page["state"] == "failed"]
    attempts = attempts_of(database, crawl_id)
    timeouts = sum(each["error_code"] == "page_timeout" for each in attempts if each["page"] == poison)
    assert (page["url"], page["error_code"]) == (poison, "worker_crashed")
    assert page["attempts"] == 3 + timeouts, "a slow machine may kill a worker too late"
    assert "SIGKILL" in page["error"]
    assert len(killed) == 3
    crashed = Counter(each["page"] for each in attempts if each["outcome"] == "crashed")
    assert crashed.pop(poison) == 3
    assert len(crashed) < PAGES_AT_ONCE, "it was alone after the first time"
    assert set(crashed.values()) <= {1}
    assert crawl["operations"]["worker"]["failed"] == 3 + len(crashed) + timeouts

    embedder.stuck_on = None
    assert stack.http.post(f"/api/crawls/{crawl_id}/retry").status_code == 202
    assert stack.settled(crawl_id)["pages_indexed"] == PAGES + 1


def test_a_page_that_takes_too_long_is_set_aside(
    stack: Stack, database: str, embedder: FakeEmbeddingServer
) -> None:
    crawl_id = new_crawl_id()
    embedder.stuck_on = "endless"
    endless = post_page(stack, crawl_id, "endless")
    post_pages(stack, crawl_id, range(5))
    crawl = stack.settled(crawl_id)
    assert (crawl["pages_indexed"], crawl["pages_failed"]) == (5, 1)
    [page] = [page for page in stack.pages(crawl_id) if page["state"] == "failed"]
    assert (page["url"], page["error_code"], page["attempts"]) == (endless, "page_timeout", 3)
    assert page["error"] == f"it was not done after {PAGE_TIMEOUT_SECONDS} s"


@pytest.mark.slow
def test_the_death_of_the_whole_service_costs_no_page_an_attempt(
    tmp_path: Path, embedder: FakeEmbeddingServer
) -> None:
    crawl_id, data_dir = new_crawl_id(), tmp_path / "data"
    settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    embedder.stuck_on = "stuck"
    with started_stack(data_dir, **settings) as stack, database_of(data_dir) as database:
        for number in range(8):
            post_page(stack, crawl_id, f"stuck-{number}")
        kill_with_a_page_in_hand(stack, database, crawl_id)
        for _ in range(3):
            with started_stack(data_dir, **settings) as again:
                kill_with_a_page_in_hand(again, database, crawl_id)
        embedder.stuck_on = None
        with running_stack(data_dir, **settings) as last:
            crawl = last.settled(crawl_id)
        outcomes = Counter(attempt["outcome"] for attempt in attempts_of(database, crawl_id))
    assert (crawl["pages_indexed"], crawl["pages_failed"]) == (8, 0)
    assert outcomes["lost"] >= 4
    assert set(outcomes) == {"indexed", "lost"}


def kill_with_a_page_in_hand(stack: Stack, database: str, crawl_id: str) -> None:
    worker = children_of(stack)["worker"]
    eventually(
        lambda: [each["worker"] for each in attempts_of(database, crawl_id) if not each["outcome"]],
        lambda workers: any(name.endswith(f":{worker.pid}") for name in workers),
    )
    for process in [psutil.Process(stack.process.pid), *children_of(stack).values()]:
        process.kill()
    stack.process.wait()
    psutil.wait_procs([worker], timeout=60)
    service_file.remove(stack.data_dir)  # where nobody answers any more


@pytest.mark.slow
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
