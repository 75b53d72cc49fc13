"""Kills worker, API, index, crawler and database again and again during a crawl, and compares the result.

    python -m tests.chaos [--pages N] [--kills N] [--seed N] [--embedder local|fake]

Two runs over the same made-up site: one undisturbed, one in which a random process of the service gets
SIGKILL every few seconds. A fake Firecrawl delivers each event once, as a self-hosted one does, whether or
not the service is up; reconciling has to fetch what is lost. Exits with 1 when a number differs.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import psutil
from rich.console import Console
from rich.table import Table

from crawlscope.database.postgres_cluster import Cluster
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Page, Site
from tests.support.stack import API_SECRET, Stack, eventually, running_stack

START_URL = "https://chaos.example/"
VICTIMS = ("worker", "worker", "api", "index", "database", "crawler")
"""Workers twice: there are two."""
COMMANDS = {
    "worker": ["--only", "index"],
    "api": ["serve", "--without-index"],
    "index": ["crawlscope", "index"],
    "crawler": ["--only", "crawl"],
}
"""The last words of their commands."""
SECONDS_BETWEEN_KILLS = (1.0, 4.0)
TIMEOUT_SECONDS = 900.0


@dataclass
class Kill:
    seconds: float
    victim: str
    pid: int
    settled: int | None
    """Pages of the crawl that were settled then; None while the API was down."""


@dataclass
class Outcome:
    crawl: dict[str, Any]
    pages: dict[str, tuple[str, int | None]]
    """Per URL its state and chunks."""
    index_chunks: int
    documents: int
    attempts: int
    recount: dict[str, Any]
    seconds: float
    undelivered: int
    """Events that no 202 answered."""
    kills: list[Kill] = field(default_factory=list)


def site_of(pages: int) -> Site:
    """Three of a hundred pages answer 404, two cannot be fetched, and two have the text of another page."""
    outcomes: list[Page | Failure] = []
    for number in range(pages):
        url = f"{START_URL}{number}.html"
        match number % 100:
            case 17 | 42 | 77:
                outcomes.append(Page(url, status_code=404))
            case 23 | 61:
                outcomes.append(Failure(url))
            case 55 | 56:
                outcomes.append(Page(url, markdown="# Moved\n\nThis page has moved."))
            case _:
                outcomes.append(Page(url))
    return Site(outcomes)


def run(site: Site, kills: int, seed: int, embedder_settings: dict[str, str], pace_seconds: float) -> Outcome:
    """One crawl of the site; with `kills` of them, spread over it."""
    with FakeFirecrawl(site) as firecrawl, tempfile.TemporaryDirectory(prefix="crawlscope-chaos-") as folder:
        firecrawl.seconds_per_page = pace_seconds
        settings = {
            **embedder_settings,
            "WORKERS": "2",
            "PORT": str(free_port()),
            "FIRECRAWL_URL": firecrawl.url,
            "RECONCILE_AFTER_SECONDS": "5",
        }
        with running_stack(Path(folder) / "data", **settings) as stack:
            began = time.monotonic()
            job = firecrawl.start("crawl", crawl_request(stack, len(site.outcomes)))
            killed = list(kill_at_random(stack, job.id, kills, Random(seed), began))
            firecrawl.wait_until_delivered(job.id, TIMEOUT_SECONDS)
            crawl = wait_until_sealed(stack, job.id)
            outcome = examine(stack, job.id, crawl)
            outcome.seconds = time.monotonic() - began
            outcome.kills = killed
            outcome.undelivered = sum(each.status != 202 for each in firecrawl.deliveries)
            return outcome


def crawl_request(stack: Stack, limit: int) -> dict[str, Any]:
    webhook = {"url": f"{stack.url}/api/webhook/firecrawl", "headers": {"X-API-Secret": API_SECRET}}
    return {"url": START_URL, "limit": limit, "webhook": webhook}


def kill_at_random(stack: Stack, crawl_id: str, kills: int, random: Random, began: float) -> Iterator[Kill]:
    for _ in range(kills):
        time.sleep(random.uniform(*SECONDS_BETWEEN_KILLS))
        settled = pages_settled(stack, crawl_id)
        victim = random.choice(VICTIMS)
        pid = eventually(lambda: pid_of(stack, victim, random), lambda it: it is not None, 60)  # noqa: B023
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        yield Kill(time.monotonic() - began, victim, pid, settled)


def pid_of(stack: Stack, victim: str, random: Random) -> int | None:
    """A living process of this kind; None while there is none."""
    if victim == "database":
        postmaster = Cluster(stack.data_dir).postmaster()
        return postmaster.pid if postmaster else None
    found = [child.pid for child in children_of(stack) if command_line_of(child)[-2:] == COMMANDS[victim]]
    return random.choice(sorted(found)) if found else None


def children_of(stack: Stack) -> list[psutil.Process]:
    return psutil.Process(stack.process.pid).children()


def command_line_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def pages_settled(stack: Stack, crawl_id: str) -> int | None:
    try:
        crawl = stack.http.get(f"/api/metrics/crawls/{crawl_id}", timeout=2)
    except httpx2.HTTPError:
        return None
    return crawl.json()["total_pages"] if crawl.status_code == 200 else None


def wait_until_sealed(stack: Stack, crawl_id: str) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        try:
            answer = stack.http.get(f"/api/metrics/crawls/{crawl_id}")
        except httpx2.HTTPError:
            return {}
        return answer.json() if answer.status_code == 200 else {}

    def is_done(crawl: dict[str, Any]) -> bool:
        reconciliation = crawl.get("reconciliation") or {}
        return bool(crawl.get("sealed")) and reconciliation.get("state") == "settled"

    return eventually(ask, is_done, TIMEOUT_SECONDS, every_seconds=0.5)


def examine(stack: Stack, crawl_id: str, crawl: dict[str, Any]) -> Outcome:
    pages: dict[str, tuple[str, int | None]] = {}
    attempts = 0
    while True:
        query: dict[str, str | int] = {"limit": 1000, "offset": len(pages), "sort": "url"}
        listed = stack.http.get(f"/api/metrics/crawls/{crawl_id}/pages", params=query).json()["pages"]
        if not listed:
            break
        pages |= {page["url"]: (page["state"], page["chunks"]) for page in listed}
        attempts += sum(page["attempts"] for page in listed)
    stats = stack.http.get("/api/stats").json()
    recount = stack.http.post(f"/api/crawls/{crawl_id}/recount").json()["changed"]
    return Outcome(crawl, pages, stats["index_chunks"], stats["documents"], attempts, recount, 0.0, 0)


def differences(undisturbed: Outcome, chaos: Outcome) -> dict[str, tuple[Any, Any]]:
    """The values that must be equal and are not."""
    numbers = {name: (each(undisturbed), each(chaos)) for name, each in COMPARED.items()}
    return {name: both for name, both in numbers.items() if both[0] != both[1]}


COMPARED: dict[str, Callable[[Outcome], Any]] = {
    "status": lambda it: it.crawl["status"],
    "pages": lambda it: len(it.pages),
    "total_pages": lambda it: it.crawl["total_pages"],
    "pages_indexed": lambda it: it.crawl["pages_indexed"],
    "pages_failed": lambda it: it.crawl["pages_failed"],
    "pages_empty": lambda it: it.crawl["pages_empty"],
    "pages_unchanged": lambda it: it.crawl["pages_unchanged"],
    "pages_cancelled": lambda it: it.crawl["pages_cancelled"],
    "pages_pending": lambda it: it.crawl["pages_pending"],
    "documents": lambda it: it.documents,
    "chunks of pages": lambda it: sum(chunks or 0 for _, chunks in it.pages.values()),
    "chunks in the index": lambda it: it.index_chunks,
    "every page's state and chunks": lambda it: it.pages,
    "changed by recount": lambda it: it.recount,
}
CIRCUMSTANCES: dict[str, Callable[[Outcome], Any]] = {
    "attempts of workers": lambda it: it.attempts,
    "undelivered events": lambda it: it.undelivered,
    "pages fetched by reconciling": lambda it: it.crawl["reconciliation"]["added"],
    "seconds": lambda it: round(it.seconds),
}


def print_kills(console: Console, chaos: Outcome) -> None:
    table = Table("#", "second", "killed", "pid", "pages settled by then", title="SIGKILLs")
    for number, kill in enumerate(chaos.kills, 1):
        settled = "unknown" if kill.settled is None else str(kill.settled)
        table.add_row(str(number), f"{kill.seconds:.1f}", kill.victim, str(kill.pid), settled)
    console.print(table)


def print_comparison(console: Console, undisturbed: Outcome, chaos: Outcome) -> None:
    table = Table("", "undisturbed", "with kills", title="Result")
    for name, each in COMPARED.items():
        values = [each(outcome) for outcome in (undisturbed, chaos)]
        if isinstance(values[0], dict):
            values = [f"{len(value)} entries" for value in values]
        table.add_row(name, *map(str, values))
    table.add_section()
    for name, each in CIRCUMSTANCES.items():
        table.add_row(name, *(str(each(outcome)) for outcome in (undisturbed, chaos)))
    console.print(table)


def free_port() -> int:
    """The API has to come back at the address that Firecrawl knows."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def embedder_settings(kind: str) -> Iterator[dict[str, str]]:
    with FakeEmbeddingServer() if kind == "fake" else nullcontext() as server:
        yield {"EMBEDDER": "tei", "EMBEDDER_URL": server.url} if server else {}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedder", choices=["local", "fake"], default="local")
    asked = parser.parse_args()
    console, site = Console(), site_of(asked.pages)
    pace_seconds = (
        asked.kills * sum(SECONDS_BETWEEN_KILLS) / 2 / asked.pages
    )  # the kills last as long as the crawl
    with embedder_settings(asked.embedder) as embedder:
        undisturbed = run(site, 0, asked.seed, embedder, 0.0)
        chaos = run(site, asked.kills, asked.seed, embedder, pace_seconds)
    print_kills(console, chaos)
    print_comparison(console, undisturbed, chaos)
    differing = differences(undisturbed, chaos)
    console.print(f"Differing: {', '.join(differing)}" if differing else "Nothing differs.")
    return 1 if differing or undisturbed.recount else 0


if __name__ == "__main__":
    sys.exit(main())
