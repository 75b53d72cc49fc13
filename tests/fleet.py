"""Kills processes of a fleet again and again while pages arrive, and counts what became of each page.

    python -m tests.fleet [--pages N] [--kills N] [--serves N] [--workers N] [--postgres FOLDER] [--seed N]

The fleet shares a PostgreSQL (`--postgres` names the programs of another version), a stand-in of a Qdrant
server and an embedding server, and no disk. Each delivery is repeated until an endpoint answers 202. Exits
with 1 when a page is lost or counted twice, or a count differs from a recount.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.qdrant_server import FakeQdrant
from tests.support.fleet import Fleet, attempts_by_member, migrate, running_fleet
from tests.support.postgres import OwnPostgres, ask
from tests.support.stack import eventually, new_crawl_id, page_event

SECONDS_BETWEEN_KILLS = (1.0, 4.0)
CRAWLS = 4
SETTLED_SECONDS = 900.0
SETTLED_BY = """
    SELECT json_object_agg(worker, number)::text FROM (
        SELECT worker, count(*) AS number FROM webhook.page_attempts WHERE outcome = 'indexed' GROUP BY worker
    ) AS by_worker
"""
COUNTED_TWICE = """
    SELECT count(*) FROM (
        SELECT page_id FROM webhook.page_attempts WHERE outcome IN ('indexed', 'unchanged', 'empty', 'failed')
        GROUP BY page_id HAVING count(*) > 1
    ) AS twice
"""


@dataclass
class Result:
    pages: int
    delivered: int
    repeated: int
    """Deliveries that were sent again, because no 202 came."""
    settled: int
    settled_twice: int
    documents: int
    chunks_of_documents: int
    chunks_in_index: int
    recounted: dict[str, Any]
    """What a recount has changed, by crawl."""
    by_worker: dict[str, int]
    """Pages that were settled."""
    seconds: float
    kills: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        expected = {
            "pages": self.pages,
            "settled": self.settled,
            "documents": self.documents,
        }
        wrong = [f"{name}: {number}" for name, number in expected.items() if number != self.delivered]
        if self.settled_twice:
            wrong.append(f"settled twice: {self.settled_twice}")
        if self.chunks_in_index != self.chunks_of_documents:
            wrong.append(f"chunks in the index: {self.chunks_in_index}, not {self.chunks_of_documents}")
        return wrong + [f"recounted: {self.recounted}"] * bool(self.recounted)


def run(
    folder: Path, pages: int, kills: int, serves: int, workers: int, programs: Path | None, seed: int
) -> Result:
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
            crawl_ids = [new_crawl_id() for _ in range(CRAWLS)]
            killed = list[str]()
            killer = threading.Thread(
                target=kill_at_random, args=(fleet, postgres, kills, Random(seed), killed)
            )
            began = time.monotonic()
            killer.start()
            repeated = fleet.deliver([event_of(crawl_ids, number) for number in range(pages)])
            killer.join()
            eventually(
                lambda: ask(postgres.url, "SELECT count(*) FROM webhook.pages WHERE settled_at IS NULL"),
                lambda waiting: waiting == 0,
                SETTLED_SECONDS,
                every_seconds=0.5,
            )
            seconds = time.monotonic() - began
            fleet.wait_until_ready()
            return examine(fleet, postgres.url, qdrant, crawl_ids, pages, repeated, seconds, killed)


def event_of(crawl_ids: list[str], number: int) -> dict[str, Any]:
    url = f"https://fleet.example/{number}.html"
    return page_event(
        crawl_ids[number % len(crawl_ids)], url, markdown=f"# Page {number}\n\nThis is page number {number}."
    )


def kill_at_random(
    fleet: Fleet, postgres: OwnPostgres, kills: int, random: Random, killed: list[str]
) -> None:
    """Of all processes alike."""
    for _ in range(kills):
        time.sleep(random.uniform(*SECONDS_BETWEEN_KILLS))
        victim = random.choice([*sorted(fleet.members), "database"])
        if victim == "database":
            postgres.kill()
            postgres.start()
        else:
            fleet.members[victim].kill()
        killed.append(victim)


def examine(
    fleet: Fleet,
    url: str,
    qdrant: FakeQdrant,
    crawl_ids: list[str],
    delivered: int,
    repeated: int,
    seconds: float,
    killed: list[str],
) -> Result:
    recounts = {
        crawl_id: fleet.endpoints[0].http.post(f"/api/crawls/{crawl_id}/recount").json()["changed"]
        for crawl_id in crawl_ids
    }
    crawls = [fleet.endpoints[-1].crawl(crawl_id) for crawl_id in crawl_ids]
    return Result(
        pages=_number(url, "SELECT count(*) FROM webhook.pages"),
        delivered=delivered,
        repeated=repeated,
        settled=sum(crawl["pages_indexed"] for crawl in crawls),
        settled_twice=_number(url, COUNTED_TWICE),
        documents=_number(url, "SELECT count(*) FROM webhook.documents"),
        chunks_of_documents=_number(url, "SELECT sum(chunks)::bigint FROM webhook.documents"),
        chunks_in_index=qdrant.client.count("crawlscope").count,
        recounted={crawl_id: changed for crawl_id, changed in recounts.items() if changed},
        by_worker=attempts_by_member(fleet, json.loads(str(ask(url, SETTLED_BY)))),
        seconds=seconds,
        kills=killed,
    )


def _number(url: str, query: str) -> int:
    found = ask(url, query)
    assert isinstance(found, int)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--serves", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--postgres", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crawlscope-fleet-") as folder:
        result = run(
            Path(folder),
            asked.pages, asked.kills, asked.serves, asked.workers, asked.postgres, asked.seed,
        )  # fmt: skip
    table = Table("", "found", title="Fleet")
    for name, value in vars(result).items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)
    Console().print("; ".join(result.problems) or "Nothing is lost, nothing is counted twice.")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
