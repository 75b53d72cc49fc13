"""The command against a running service: every page is accounted for, and what is lost is reported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import API_SECRET, running_stack

pytestmark = pytest.mark.slow


def replay(url: str, secret: str = API_SECRET) -> subprocess.CompletedProcess[str]:
    """A few crawls of small recordings; seed 8 begins with one of 38 pages."""
    options = ["--minutes", "0.1", "--rate", "10", "--seed", "8", "--wait", "60"]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.replay", url, *options],
        env=os.environ | {"CRAWLSCOPE_API_SECRET": secret},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_page_of_replayed_crawls_is_accounted_for(tmp_path: Path):
    with (
        FakeEmbeddingServer() as embedder,
        running_stack(tmp_path / "data", EMBEDDER="tei", EMBEDDER_URL=embedder.url) as stack,
    ):
        run = replay(stack.url)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "NOT MET" not in run.stdout

        refused = replay(stack.url, "a-wrong-secret")
    assert refused.returncode == 1
    assert "401" in refused.stdout
    assert "NOT MET" in refused.stdout


def test_a_service_that_does_not_answer_loses_deliveries():
    run = replay("http://127.0.0.1:9")
    assert run.returncode == 1
    assert "without answer" in run.stdout
