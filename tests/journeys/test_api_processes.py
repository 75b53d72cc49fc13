"""Several API processes are one service on one port, whichever of them answers."""

import contextlib
import signal
import threading
from pathlib import Path
from typing import Any

import httpx2
import psutil

from crawlscope.core import service_file
from crawlscope.processes.worker.process import NICENESS
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import API_SECRET, Stack, eventually, new_crawl_id, page_event, running_stack


def api_processes(stack: Stack) -> list[psutil.Process]:
    children = psutil.Process(stack.process.pid).children()
    return [child for child in children if "--shared-port" in child.cmdline()]


def listening(stack: Stack) -> set[int]:
    """The API processes that take connections."""
    port = int(stack.url.rpartition(":")[2])
    return {
        process.pid
        for process in api_processes(stack)
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }


def ask(stack: Stack, method: str, path: str, **options: Any) -> httpx2.Response:
    """Over a connection of its own, once more if the process behind it has just been killed."""
    for _ in range(20):
        with (
            contextlib.suppress(httpx2.TransportError),
            httpx2.Client(
                base_url=stack.url, headers={"X-API-Secret": API_SECRET}, trust_env=False
            ) as client,
        ):
            return client.request(method, path, timeout=60, **options)
    raise AssertionError(f"nobody answers {method} {path}")


def deliver(stack: Stack, crawl_id: str, pages: range) -> None:
    for number in pages:
        event = page_event(crawl_id, f"https://example.com/{number}")
        answer = ask(stack, "POST", "/api/webhook/firecrawl", json=event).json()
        assert answer["status"] in ("queued", "duplicate"), "a killed process may have stored it"


def settled(stack: Stack, crawl_id: str, pages: int) -> None:
    path = f"/api/metrics/crawls/{crawl_id}"
    eventually(lambda: ask(stack, "GET", path).json(), lambda crawl: crawl["total_pages"] == pages)


def followed(stack: Stack, crawl_id: str, events: list[str]) -> None:
    with (
        contextlib.suppress(httpx2.TransportError),
        stack.http.stream("GET", f"/api/metrics/crawls/{crawl_id}/events") as feed,
    ):
        events.extend(feed.iter_lines())


def test_two_api_processes_are_one_service(tmp_path: Path) -> None:
    with (
        FakeEmbeddingServer() as embedder,
        running_stack(
            tmp_path / "data", API_PROCESSES="2", WORKERS="1", EMBEDDER="tei", EMBEDDER_URL=embedder.url
        ) as stack,
    ):
        first = eventually(lambda: listening(stack), lambda found: len(found) == 2)
        crawl_id, events = new_crawl_id(), list[str]()
        deliver(stack, crawl_id, range(8))
        follower = threading.Thread(target=followed, args=(stack, crawl_id, events), daemon=True)
        follower.start()
        settled(stack, crawl_id, 8)
        deliver(stack, crawl_id, range(8, 12))
        settled(stack, crawl_id, 12)
        eventually(lambda: events, lambda found: "event: pages" in found)
        for _ in range(8):  # the same is found by each
            assert ask(stack, "POST", "/api/search", json={"query": "a little text"}).json()["total"] == 12

        children = psutil.Process(stack.process.pid).children()
        [worker] = [child for child in children if child.cmdline()[-2:] == ["--only", "index"]]
        assert worker.nice() == min(19, psutil.Process(min(first)).nice() + NICENESS)

        killed = min(first)
        psutil.Process(killed).send_signal(signal.SIGKILL)
        deliver(stack, crawl_id, range(12, 16))
        settled(stack, crawl_id, 16)
        eventually(lambda: listening(stack), lambda found: len(found) == 2 and killed not in found)
        running = service_file.read(tmp_path / "data")
        assert (running and running.pid) == stack.process.pid
        eventually(lambda: ask(stack, "GET", "/health").json()["status"], lambda status: status == "ok")
    assert service_file.read(tmp_path / "data") is None
