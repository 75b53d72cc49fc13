"""The embedder is changed under a filled index: the old one serves until the new one is filled."""

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import (
    Stack,
    eventually,
    new_crawl_id,
    page_event,
    running_stack,
    stack_environment,
)

PAGES = 5
QUERY = "what is said of the number seven"


def deliver(stack: Stack, crawl_id: str, numbers: range) -> dict[str, Any]:
    for number in numbers:
        text = f"# Page {number}\n\n" + "\n\n".join(
            f"Paragraph {n} of page {number}. " * 40 for n in range(3)
        )
        event = page_event(crawl_id, f"https://example.com/{number}", markdown=text)
        assert stack.post_event(event).status_code == 202
    return stack.settled(crawl_id)


def totals(stack: Stack) -> tuple[int, int, int]:
    stats = eventually(lambda: stack.http.get("/api/stats").json(), lambda it: it["index_problem"] is None)
    return stats["documents"], stats["chunks"], stats["index_chunks"]


def urls(found: dict[str, Any]) -> set[str]:
    return {result["url"] for result in found["results"]}


class Searching:
    """Searches again and again; afterwards `answers` has all statuses, and whether each found something."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[tuple[int, bool]] = []

    def __enter__(self) -> "Searching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.2):
            answer = self._stack.http.post("/api/search", json={"query": QUERY})
            self.answers.append((answer.status_code, bool(answer.json().get("results"))))


@pytest.mark.slow
def test_the_embedder_is_changed_while_searches_go_on(tmp_path: Path) -> None:
    data_dir, first, second = tmp_path / "data", new_crawl_id(), new_crawl_id()
    with running_stack(data_dir, WORKERS="1") as stack:
        deliver(stack, first, range(PAGES))
        deliver(stack, second, range(3))
        held = totals(stack)
        assert held[0] == PAGES
        of_second = urls(stack.search("page", limit=100, filters={"crawl_id": second}))
        assert len(of_second) == 3

    with FakeEmbeddingServer(delay_seconds=0.1) as server:
        settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": server.url}
        with running_stack(data_dir, **settings) as stack, Searching(stack) as searching:
            health = stack.http.get("/health").json()["parts"]
            assert "built with local sentence-transformers/all-MiniLM-L6-v2" in health["embedder"]["detail"]
            assert "`crawlscope reindex`" in stack.http.get("/api/stats").json()["index_problem"]
            with started(data_dir, settings, "doctor") as doctor:
                assert "the index was built with local" in doctor.communicate(timeout=120)[0]
            assert doctor.returncode == 1

            with started(data_dir, settings, "reindex", "--json") as reindex:
                eventually(partial(filling, stack), lambda name: name == "index-2")
                during = new_crawl_id()
                deliver(stack, during, range(PAGES - 1, PAGES + 2))
                printed, complaints = reindex.communicate(timeout=120)
            assert (reindex.returncode, complaints) == (0, "")
            assert json.loads(printed)["name"] == "index-2"

            documents, chunks, _ = eventually(partial(totals, stack), lambda it: it[1] == it[2])
            assert documents == PAGES + 2
            assert chunks * PAGES == held[1] * documents, "every page has as many chunks as before"
            assert stack.http.get("/health").json()["status"] == "ok"
            eventually(lambda: served_by(stack, server), lambda it: it)
            assert urls(stack.search("page", limit=100, filters={"crawl_id": second})) == of_second
            assert len(urls(stack.search("page", limit=100, filters={"crawl_id": during}))) == 3
            assert filling(stack) is None
        assert set(searching.answers) == {(200, True)}
        assert len(searching.answers) > 10


def served_by(stack: Stack, server: FakeEmbeddingServer) -> bool:
    """Whether the server embeds queries, and its vectors score chunks, which have a share of their page's."""
    [best, *_] = stack.search(QUERY, mode="semantic")["results"]
    heading = f"Page {best['url'].rpartition('/')[2]}"
    text = best["text"] if best["text"].startswith(f"# {heading}") else f"{heading}\n\n{best['text']}"
    cosine = float(np.dot(server.vector(QUERY), server.vector(text)))
    embedded = any(request.texts == [QUERY] for request in server.requests)
    return embedded and abs(best["score"] - cosine) < 0.1


def filling(stack: Stack) -> str | None:
    report = stack.http.get("/api/reindex").json()["filling"]
    return report and report["name"]


def started(data_dir: Path, settings: dict[str, str], *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "crawlscope", *command],
        env=stack_environment(data_dir, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
