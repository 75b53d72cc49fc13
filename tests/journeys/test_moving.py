"""A service that takes any free port comes back at another one."""

import os
import signal
from pathlib import Path

import pytest

from crawlscope.core import service_file
from tests.support.commands import PAGES, website
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import eventually, running_stack


@pytest.mark.slow
def test_a_crawl_delivers_to_where_the_service_came_back(tmp_path: Path):
    with (
        FakeEmbeddingServer() as embedder,
        running_stack(
            tmp_path / "data", PORT="0", WORKERS="1", EMBEDDER="tei", EMBEDDER_URL=embedder.url
        ) as stack,
        website(answer_seconds=2) as url,
    ):
        crawl_id = stack.start_crawl({"url": url, "engine": "builtin"}).json()["crawl_id"]
        eventually(lambda: stack.crawl(crawl_id)["found"], lambda found: found > 0)
        before = service_file.read(stack.data_dir)
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        now = eventually(
            lambda: service_file.read(stack.data_dir), lambda it: it is not None and it.pid != before.pid
        )
        assert now is not None
        assert now.url != before.url
        stack.move_to(now.url)
        crawl = eventually(lambda: stack.crawl(crawl_id), lambda it: it["status"] != "in_progress", 120)
        assert (crawl["status"], stack.settled(crawl_id)["pages_indexed"]) == ("completed", PAGES)
