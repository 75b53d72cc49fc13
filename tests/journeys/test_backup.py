"""A backup of a running service is restored on an empty machine, and its rebuilt index is the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import Stack, new_crawl_id, page_event, running_stack, stack_environment

PAGES = 4


def numbers(stack: Stack, crawl_id: str) -> dict[str, Any]:
    stats = stack.http.get("/api/stats").json()
    crawl = stack.crawl(crawl_id)
    found = stack.search("cassowary", mode="keyword", limit=100)["results"]
    return {
        "stats": {name: stats[name] for name in ("documents", "chunks", "index_chunks")},
        "crawl": {name: value for name, value in crawl.items() if name not in ("verdict", "awaits")},
        "found": sorted((each["url"], each["title"], each["text"]) for each in found),
    }


def run(data_dir: Path, settings: dict[str, str], *command: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "crawlscope", *command, "--json"],
        env=stack_environment(data_dir, **settings),
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(ended.stdout))


@pytest.mark.slow
def test_crawls_and_documents_of_programs_are_restored(tmp_path: Path) -> None:
    file, crawl_id = str(tmp_path / "backup.zip"), new_crawl_id()
    with FakeEmbeddingServer() as embedder:
        settings = {"WORKERS": "1", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
        with running_stack(tmp_path / "before", **settings) as stack:
            for number in range(PAGES):
                markdown = f"# Page {number}\n\n" + f"A cassowary in sentence {number}. " * 200
                event = page_event(crawl_id, f"https://a.example/{number}", markdown=markdown)
                assert stack.post_event(event).status_code == 202
            stack.settled(crawl_id)
            for name, further in {"own": {}, "import": {"crawl_id": "import"}}.items():
                markdown = f"# {name}\n\n" + f"A cassowary of {name}. " * 200
                document = {"url": f"https://wiki.example/{name}", "markdown": markdown, **further}
                assert stack.http.post("/api/documents", json=document).json()["state"] == "indexed"
            before = numbers(stack, crawl_id)
            assert before["stats"]["documents"] == PAGES + 2
            assert len(before["found"]) == PAGES + 2
            run(tmp_path / "before", settings, "backup", file)
        index = run(tmp_path / "after", settings, "restore", file)["index"]
        assert (index["documents"], index["failed"]) == (PAGES + 2, 0)
        with running_stack(tmp_path / "after", **settings) as stack:
            assert numbers(stack, crawl_id) == before
