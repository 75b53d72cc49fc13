"""A whole running Crawlscope, as a user starts it, and what journeys do with it over HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx2

from tests.support.data_folders import give_tables, share_cache
from tests.support.recordings import RECORDED_HMAC_SECRET, Recorded

API_SECRET = "journey-secret"
RECEIVE_TOKEN = "journey-token"

T = TypeVar("T")


def new_crawl_id() -> str:
    return str(uuid4())


def page_event(crawl_id: str, url: str = "https://example.com/a", **document: Any) -> dict[str, Any]:
    """The event of one scraped page; `document` adds to its fields."""
    return {
        "success": True,
        "type": "crawl.page",
        "id": crawl_id,
        "webhookId": new_crawl_id(),
        "data": [{"markdown": "# A page\n\nWith a little text.", "metadata": {"sourceURL": url}} | document],
        "metadata": {},
    }


class Stack:
    """`crawlscope up` in a data folder of its own."""

    def __init__(self, data_dir: Path, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.data_dir = data_dir
        self.process = process
        self.move_to(url)

    def move_to(self, url: str) -> None:
        """After a restart the service may listen elsewhere."""
        self.url = url
        self.http = httpx2.Client(
            base_url=url, headers={"X-API-Secret": API_SECRET}, timeout=60, trust_env=False
        )
        self.anonymous = httpx2.Client(base_url=url, timeout=60, trust_env=False)

    def deliver(self, delivery: Recorded) -> httpx2.Response:
        """With the secret, unless it is signed."""
        sender = self.anonymous if "x-firecrawl-signature" in delivery.headers else self.http
        return sender.post("/api/webhook/firecrawl", content=delivery.body, headers=delivery.headers)

    def post_event(self, event: Mapping[str, Any]) -> httpx2.Response:
        return self.http.post("/api/webhook/firecrawl", json=dict(event))

    def start_crawl(self, request: Mapping[str, Any]) -> httpx2.Response:
        """As the command line's user, who may crawl private addresses."""
        token = (self.data_dir / "local-token").read_text()
        return self.http.post("/api/crawls", json=dict(request), headers={"X-Crawlscope-Local": token})

    def crawl(self, crawl_id: str, **query: Any) -> dict[str, Any]:
        answer = self.http.get(f"/api/metrics/crawls/{crawl_id}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pages(self, crawl_id: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get(f"/api/metrics/crawls/{crawl_id}/pages", params={"limit": 1000, **query})
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] == len(answer.json()["pages"])
        return answer.json()["pages"]

    def search(self, query: str, **options: Any) -> dict[str, Any]:
        answer = self.http.post("/api/search", json={"query": query, **options})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def settled(self, crawl_id: str, seconds: float = 120, every_seconds: float = 0.05) -> dict[str, Any]:
        """The crawl once none of its pages is pending."""
        return eventually(
            lambda: self.crawl(crawl_id),
            lambda crawl: crawl["pages_pending"] == 0,
            seconds,
            every_seconds,
        )


def eventually(
    ask: Callable[[], T],
    enough: Callable[[T], bool],
    seconds: float = 240,
    every_seconds: float = 0.05,
) -> T:
    """Asks until the answer is good enough; the last answer when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if enough(answer):
            return answer
        assert time.monotonic() < deadline, f"after {seconds} seconds still {answer}"
        time.sleep(every_seconds)


@contextmanager
def running_stack(data_dir: Path, **settings: str) -> Iterator[Stack]:
    """Starts everything and ends it with SIGTERM; fails when that does not end cleanly."""
    with started_stack(data_dir, **settings) as stack:
        yield stack
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(timeout=120) == 0


@contextmanager
def started_stack(data_dir: Path, **settings: str) -> Iterator[Stack]:
    """For tests that end the stack in ways of their own."""
    environment = stack_environment(data_dir, **settings)
    share_cache(data_dir)
    if "DATABASE_URL" not in settings:
        give_tables(data_dir)
    log = log_of(data_dir).open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "crawlscope", "up"], env=environment, stdout=log, stderr=log
    )
    try:
        url = eventually(lambda: _address(data_dir, process), bool, 240)
        assert url is not None
        stack = Stack(data_dir, url, process)
        eventually(lambda: stack.http.get("/health").json()["status"], lambda it: it == "ok", 240)
        yield stack
        stack.http.close()
        stack.anonymous.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.close()


def stack_environment(data_dir: Path, **settings: str) -> dict[str, str]:
    own = {
        "DATA_DIR": str(data_dir),
        "PORT": "0",
        "API_SECRET": API_SECRET,
        "RECEIVE_TOKEN": RECEIVE_TOKEN,
        "FIRECRAWL_WEBHOOK_SECRET": RECORDED_HMAC_SECRET,
        "MIN_FREE_DISK_BYTES": "0",
        **settings,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLSCOPE_")}
    return inherited | {f"CRAWLSCOPE_{name}": value for name, value in own.items()}


def _address(data_dir: Path, process: "subprocess.Popen[bytes]") -> str | None:
    if process.poll() is not None:
        log = log_of(data_dir).read_text()
        raise AssertionError(f"`up` ended with {process.returncode}, its log with: {log[-2_000:]}")
    try:
        return json.loads((data_dir / "service.json").read_text())["url"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def log_of(data_dir: Path) -> Path:
    """The log of the stack of this data folder."""
    return data_dir.parent / f"{data_dir.name}.log"
