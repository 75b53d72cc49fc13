"""A deployed service is checked from outside."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import crawlscope, website
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import API_SECRET, Stack, running_stack

PARTS = ["address", "parts", "secret", "live feed", "crawl", "search", "cleanup"]


def findings(stack_url: str, *arguments: str, secret: str = API_SECRET) -> tuple[int, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        done = crawlscope(Path(folder), "doctor", "--url", stack_url, "--json", *arguments, API_SECRET=secret)
    assert "Traceback" not in done.stderr
    return done.returncode, {each["part"]: each for each in json.loads(done.stdout)["findings"]}


@pytest.mark.slow
def test_a_service_that_works_is_found_to_work(tmp_path: Path) -> None:
    with (
        FakeEmbeddingServer() as embedder,
        running_stack(
            tmp_path / "data",
            WORKERS="1",
            EMBEDDER="tei",
            EMBEDDER_URL=embedder.url,
            ALLOW_PRIVATE_TARGETS="true",
        ) as stack,
    ):
        code, found = findings(stack.url)
        assert (code, list(found)) == (0, PARTS), found
        assert found["crawl"]["words"].startswith("2 pages of http://127.0.0.1:")
        with website() as site:
            code, found = findings(stack.url, "--site", site)
            assert (code, list(found)) == (0, PARTS), found
        assert stack.http.get("/api/metrics/crawls").json()["total"] == 0


@pytest.mark.slow
def test_faults_say_what_to_do(quick_stack: Stack) -> None:
    code, found = findings(quick_stack.url)
    assert (code, list(found)) == (1, [part for part in PARTS if part != "search"])
    assert "private address" in found["crawl"]["words"]
    assert "--site" in found["crawl"]["words"]
    code, found = findings(quick_stack.url, secret="wrong")
    assert (code, list(found), found["secret"]["ok"]) == (1, PARTS[:3], False)
    assert "CRAWLSCOPE_API_SECRET" in found["secret"]["words"]
    code, found = findings("http://127.0.0.1:1")
    assert (code, list(found)) == (1, ["address"])


def test_the_secret_is_not_sent_over_a_network_in_plain_text() -> None:
    code, found = findings("http://192.0.2.1")
    assert (code, list(found)) == (1, ["address"])
    assert "nothing was sent" in found["address"]["words"]


@pytest.mark.parametrize("arguments", [("--site", "http://a.example"), ("--url", "no address")])
def test_wrong_usage_is_refused(tmp_path: Path, arguments: tuple[str, str]) -> None:
    done = crawlscope(tmp_path, "doctor", *arguments, API_SECRET="a")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
