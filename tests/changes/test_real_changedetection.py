r"""Watches at a real changedetection.io, where one is named, from `watch` to the change that search finds.

    pip install changedetection.io
    ALLOW_IANA_RESTRICTED_ADDRESSES=true changedetection.io -d FOLDER -p 5000
    CRAWLSCOPE_TEST_CHANGEDETECTION_URL=http://127.0.0.1:5000 CRAWLSCOPE_TEST_CHANGEDETECTION_KEY=KEY \
        pytest tests/changes/test_real_changedetection.py -n 0

It must be on this machine, since it watches a website of the test's own. KEY is shown under Settings, API.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.commands import crawlscope
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.website import Website, html
from tests.support.stack import API_SECRET, Stack, eventually, running_stack

URL = os.environ.get("CRAWLSCOPE_TEST_CHANGEDETECTION_URL")
KEY = os.environ.get("CRAWLSCOPE_TEST_CHANGEDETECTION_KEY", "")

pytestmark = pytest.mark.skipif(URL is None, reason="CRAWLSCOPE_TEST_CHANGEDETECTION_URL names no server")

ODD_SECRET = "an-odd+secret/with%41&{{7*7}}=?#"


class Watcher:
    """The real one, as far as the test reads its state."""

    def __init__(self) -> None:
        assert URL is not None
        self._http = httpx2.Client(base_url=URL, headers={"x-api-key": KEY}, timeout=30, trust_env=False)

    def watches(self, site: str) -> dict[str, str]:
        """Ids by URL, of watches of this site."""
        listed = self._http.get("/api/v1/watch").raise_for_status().json()
        return {watch["url"]: uuid for uuid, watch in listed.items() if watch["url"].startswith(site)}

    def details(self, uuid: str) -> dict[str, Any]:
        return self._http.get(f"/api/v1/watch/{uuid}").raise_for_status().json()

    def check(self, uuid: str) -> None:
        """Until it has looked at the page once more."""
        before = self.details(uuid)["check_count"]
        self._http.get(f"/api/v1/watch/{uuid}", params={"recheck": "1"}).raise_for_status()
        eventually(lambda: self.details(uuid)["check_count"], lambda count: count > before, 60, 0.3)

    def forget(self, site: str) -> None:
        for uuid in self.watches(site).values():
            self._http.delete(f"/api/v1/watch/{uuid}")


@pytest.fixture
def site() -> Iterator[Website]:
    pages = {
        "/": html("<p>Of heliotropes.</p>", title="Home", links=["/prices", "/?q=%7B%22a%22:1%7D"]),
        "/prices": html("<p>Apples cost two.</p>", title="Prices"),
        "/?q=%7B%22a%22:1%7D": html("<p>A query of its own.</p>", title="A query"),
    }
    with Website(pages) as running:
        yield running


@pytest.fixture
def watcher(site: Website) -> Iterator[Watcher]:
    opened = Watcher()
    yield opened
    opened.forget(site.url)


def settings(embedder: FakeEmbeddingServer, **more: str) -> dict[str, str]:
    assert URL is not None
    return {
        "WORKERS": "1",
        "EMBEDDER": "tei",
        "EMBEDDER_URL": embedder.url,
        "ALLOW_PRIVATE_TARGETS": "true",
        "CHANGEDETECTION_URL": URL,
        "CHANGEDETECTION_API_KEY": KEY,
        **more,
    }


def watch(stack: Stack, crawl_id: str, own: dict[str, str]) -> dict[str, Any]:
    ended = crawlscope(stack.data_dir, "watch", crawl_id, "--json", **{"API_SECRET": API_SECRET, **own})
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(
    "more",
    [{}, {"RECEIVE_TOKEN": "", "API_SECRET": ODD_SECRET}],
    ids=["by token", "by an odd secret"],
)
def test_a_page_of_a_crawl_changes_and_is_found(
    site: Website, watcher: Watcher, more: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder, FakeEmbeddingServer() as embedder:
        own = settings(embedder, **more)
        with running_stack(Path(folder) / "data", **own) as stack:
            stack.http.headers["X-API-Secret"] = more.get("API_SECRET", API_SECRET)
            _is_watched_and_found(stack, site, watcher, own)
        written = (Path(folder) / "data.log").read_text()
    assert not any(secret in written for secret in (KEY, API_SECRET, ODD_SECRET))


def _is_watched_and_found(stack: Stack, site: Website, watcher: Watcher, own: dict[str, str]) -> None:
    crawl_id = stack.start_crawl({"url": f"{site.url}/"}).json()["crawl_id"]
    eventually(lambda: stack.crawl(crawl_id), lambda crawl: crawl["sealed"], 120)
    assert watch(stack, crawl_id, own) == {
        "crawl_id": crawl_id,
        "created": 3,
        "known": 0,
        "refused": [],
        "left": 0,
    }
    again = watch(stack, crawl_id, own)
    assert (again["created"], again["known"]) == (0, 3)

    uuid = watcher.watches(site.url)[f"{site.url}/prices"]
    assert watcher.details(uuid)["title"] == "Prices"
    watcher.check(uuid)
    site.pages["/prices"] = html('<p>Apples cost "three" \N{EURO SIGN} — or xylographs.</p>', title="Prices")
    watcher.check(uuid)

    def change() -> dict[str, Any]:
        listed = stack.http.get("/api/changes", params={"url": f"{site.url}/prices"}).json()["changes"]
        return listed[0] if listed else {"indexed_at": None}

    found = eventually(change, lambda it: it["indexed_at"] is not None, 120)
    assert (found["watch_url"], found["watch_id"]) == (f"{site.url}/prices", uuid)
    assert '"three" \N{EURO SIGN}' in found["diff_summary"]
    assert found["metadata"] == {"watch_title": "Prices"}
    assert found["snapshot_url"] is None or found["snapshot_url"].startswith("http")
    assert datetime.fromisoformat(found["indexed_at"]) > datetime.fromisoformat(found["detected_at"])
    [hit] = stack.search("xylographs", mode="keyword")["results"]
    assert hit["url"] == f"{site.url}/prices"
