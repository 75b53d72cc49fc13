"""Kills processes of a fleet while recorded pages arrive at full rate, and counts what became of each page.

    python -m tests.fleet [--pages N] [--kills N] [--serves N] [--workers N] [--postgres FOLDER] [--seed N]

The fleet shares a PostgreSQL (`--postgres` names the programs of another version), a stand-in of a Qdrant
server and an embedding server, and no disk. The deliveries are those of `benchmarks.traffic`, all at once,
with texts of at most `--characters`: the stand-in keeps every chunk in memory. Each delivery is repeated
until an endpoint answers 202. Exits with 1 when a page is lost or counted twice, or a count differs from a
recount.
"""

import argparse
import json
import math
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
from benchmarks.traffic import Delivery, Traffic, deliveries, markdown
from rich.console import Console
from rich.table import Table

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.qdrant_server import FakeQdrant
from tests.support.fleet import Fleet, attempts_by_member, migrate, running_fleet
from tests.support.postgres import OwnPostgres, ask
from tests.support.stack import eventually

MIN_SECONDS_BETWEEN_KILLS = 1.0
CHARACTERS = 1_500
SETTLED_SECONDS = 900.0
"""And one more for each page."""
WAITING = "SELECT count(*) FROM webhook.pages WHERE settled_at IS NULL"
SETTLED = "SELECT count(*) FROM webhook.pages WHERE settled_at IS NOT NULL AND delivered"
SETTLED_BY_CRAWL = """
    SELECT json_object_agg(crawl_id, number)::text FROM (
        SELECT crawl_id, count(*) AS number FROM webhook.pages WHERE settled_at IS NOT NULL GROUP BY crawl_id
    ) AS by_crawl
"""
INDEXED_BY = """
    SELECT coalesce(json_object_agg(worker, number), '{}')::text FROM (
        SELECT worker, count(*) AS number FROM webhook.page_attempts
        WHERE outcome IN ('indexed', 'unchanged', 'empty') GROUP BY worker
    ) AS by_worker
"""
ATTEMPTS = """
    SELECT coalesce(json_object_agg(coalesce(outcome, 'open'), number), '{}')::text FROM (
        SELECT outcome, count(*) AS number FROM webhook.page_attempts GROUP BY outcome
    ) AS by_outcome
"""
COUNTED_TWICE = """
    SELECT count(*) FROM (
        SELECT page_id FROM webhook.page_attempts WHERE outcome IN ('indexed', 'unchanged', 'empty', 'failed')
        GROUP BY page_id, revision HAVING count(*) > 1
    ) AS twice
"""
WITHOUT_DOCUMENT = """
    SELECT count(*) FROM webhook.pages WHERE state IN ('indexed', 'unchanged')
        AND document_key NOT IN (SELECT key FROM webhook.documents)
"""


@dataclass
class Result:
    pages: int
    """That were accepted, those that failed at Firecrawl included."""
    repeated: int
    """Deliveries that were sent again, because no 202 came."""
    attempts: dict[str, int]
    """The attempts of workers, by outcome."""
    lost: int
    """Pages that were accepted, and are unknown or have no outcome."""
    surplus: int
    """Pages that nobody delivered."""
    counted_twice: int
    """Contents of a page with two outcomes."""
    unbalanced: dict[str, Any]
    """Crawls whose counts are not the number of their pages."""
    recounted: dict[str, Any]
    """The changes of a recount, by crawl."""
    without_document: int
    """Pages that were indexed, and whose document the index does not have."""
    chunks_of_documents: int
    chunks_in_index: int
    by_worker: dict[str, int]
    """Pages that were indexed."""
    seconds: float
    kills: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        counts = ("lost", "surplus", "counted_twice", "without_document", "unbalanced", "recounted")
        found = {name.replace("_", " "): getattr(self, name) for name in counts}
        wrong = [f"{name}: {value}" for name, value in found.items() if value]
        if self.chunks_in_index != self.chunks_of_documents:
            wrong.append(f"chunks in the index: {self.chunks_in_index}, not {self.chunks_of_documents}")
        return wrong


@dataclass
class Deliveries:
    """Those of the traffic with so many pages that have content. Counts all pages while it is read."""

    traffic: Traffic
    pages: int
    characters: int
    sent: Counter[str] = field(default_factory=Counter)
    """Pages by crawl."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seen, with_content = set[tuple[str, str]](), 0
        for delivery in deliveries(self.traffic):
            if delivery.page is not None and (page := (delivery.crawl_id, delivery.page)) not in seen:
                seen.add(page)
                self.sent[delivery.crawl_id] += 1
                with_content += delivery.version is not None
            yield self._event(delivery)
            if with_content == self.pages:
                return

    def _event(self, delivery: Delivery) -> dict[str, Any]:
        if delivery.page is None or delivery.version is None:
            return delivery.event
        text = markdown(delivery.page, delivery.version)[: self.characters]
        return delivery.event | {"data": [delivery.event["data"][0] | {"markdown": text}]}


def run(
    folder: Path,
    pages: int,
    kills: int,
    serves: int,
    workers: int,
    programs: Path | None,
    seed: int,
    characters: int = CHARACTERS,
) -> Result:
    traffic = Traffic(seed, pages_per_second=1.0, seconds=math.inf, changed=0.5)
    sent = Deliveries(traffic, pages, characters)
    with (
        OwnPostgres(programs) as postgres,
        FakeQdrant() as qdrant,
        FakeEmbeddingServer() as embedder,
    ):
        settings = {
            "DATABASE_URL": postgres.url,
            "QDRANT_URL": qdrant.url,
            "EMBEDDER": "tei",
            "EMBEDDER_URL": embedder.url,
        }
        migrate(folder / "migrating", **settings)
        with running_fleet(folder, serves, workers, **settings) as fleet:
            fleet.keep_running()
            killed = list[str]()
            moments = sorted(Random(seed).uniform(0, pages) for _ in range(kills))
            killer = threading.Thread(target=kill_at_random, args=(fleet, postgres, moments, seed, killed))
            began = time.monotonic()
            killer.start()
            repeated = fleet.deliver(sent)
            eventually(
                lambda: number_unless_down(postgres, WAITING, 1),
                lambda waiting: waiting == 0,
                SETTLED_SECONDS + pages,
                0.5,
            )
            seconds = time.monotonic() - began
            killer.join()
            fleet.wait_until_ready()
            return examine(fleet, postgres.url, qdrant, sent.sent, repeated, seconds, killed)


def kill_at_random(
    fleet: Fleet, postgres: OwnPostgres, moments: list[float], seed: int, killed: list[str]
) -> None:
    """Kills processes of all kinds alike. `moments` are numbers of settled pages, so kills spread over the
    whole run."""
    random = Random(seed)
    for moment in moments:
        eventually(
            lambda: number_unless_down(postgres, SETTLED, 0),
            lambda number: number >= moment,  # noqa: B023
            SETTLED_SECONDS + moment,
            0.2,
        )
        victim = random.choice([*sorted(fleet.members), "database"])
        if victim == "database":
            postgres.kill()
            postgres.start()
        else:
            fleet.members[victim].kill()
        killed.append(victim)
        time.sleep(MIN_SECONDS_BETWEEN_KILLS)


def number_unless_down(postgres: OwnPostgres, query: str, otherwise: int) -> int:
    """The database is down when it was killed."""
    with suppress(OSError, asyncpg.PostgresError):
        return _number(postgres.url, query)
    return otherwise


def examine(
    fleet: Fleet,
    url: str,
    qdrant: FakeQdrant,
    sent: Counter[str],
    repeated: int,
    seconds: float,
    killed: list[str],
) -> Result:
    first, *_, last = fleet.endpoints
    recounts = {
        crawl_id: first.http.post(f"/api/crawls/{crawl_id}/recount").json()["changed"] for crawl_id in sent
    }
    counted = {crawl_id: pages_in(last.crawl(crawl_id)) for crawl_id in sent}
    settled = Counter(_numbers(url, SETTLED_BY_CRAWL))
    return Result(
        pages=sent.total(),
        repeated=repeated,
        attempts=_numbers(url, ATTEMPTS),
        lost=(sent - settled).total(),
        surplus=(settled - sent).total(),
        counted_twice=_number(url, COUNTED_TWICE),
        unbalanced={
            crawl_id: (counted[crawl_id], number)
            for crawl_id, number in sent.items()
            if counted[crawl_id] != number
        },
        recounted={crawl_id: changed for crawl_id, changed in recounts.items() if changed},
        without_document=_number(url, WITHOUT_DOCUMENT),
        chunks_of_documents=_number(url, "SELECT sum(chunks)::bigint FROM webhook.documents"),
        chunks_in_index=qdrant.client.count("crawlscope").count,
        by_worker=attempts_by_member(fleet, _numbers(url, INDEXED_BY)),
        seconds=seconds,
        kills=killed,
    )


def pages_in(crawl: dict[str, Any]) -> int:
    """By the counts of its outcomes."""
    return sum(crawl[f"pages_{outcome}"] for outcome in ("indexed", "failed", "cancelled"))


def _numbers(url: str, query: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(str(ask(url, query)))
    return found


def _number(url: str, query: str) -> int:
    found = ask(url, query)
    assert isinstance(found, int)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pages",
        type=int,
        default=5_000,
        help="with content; those of the same crawls that failed come along",
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--serves", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--postgres", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--characters", type=int, default=CHARACTERS, help="of a page's text, at most")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crawlscope-fleet-") as folder:
        result = run(
            Path(folder),
            asked.pages, asked.kills, asked.serves, asked.workers, asked.postgres, asked.seed,
            asked.characters,
        )  # fmt: skip
    table = Table("", "found", title="Fleet")
    for name, value in vars(result).items():
        shown = str(dict(Counter(value))) if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), shown)
    Console().print(table)
    Console().print("; ".join(result.problems) or "Nothing is lost, nothing is counted twice.")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
