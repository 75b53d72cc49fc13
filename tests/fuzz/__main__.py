"""Fuzzes every parser of foreign input.

    python -m tests.fuzz --inputs 100000 --minutes 20

divides the inputs and the time among the targets. A finding has a number, which repeats it:
`--target html --first 1234 --inputs 1`.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from crawlscope.core import logs
from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database
from tests.fuzz.running import Outcome, limited_memory, run
from tests.fuzz.targets import TARGETS

SHARES = {
    **dict.fromkeys(("sitemaps", "robots", "queries"), 2.0),
    **dict.fromkeys(("deliveries", "requests", "tools"), 0.5),
    **dict.fromkeys(("changes", "backups", "fetching", "rerankers"), 0.3),
    **dict.fromkeys(("firecrawl", "watchers"), 0.1),
}
"""How many inputs, for one of another target: those that ask a database or repeat requests take longer."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--inputs", type=int, default=100_000)
    arguments.add_argument("--minutes", type=float, default=20)
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--target", choices=TARGETS, action="append")
    given = arguments.parse_args()
    logs.configure("ERROR", "fuzz")
    targets = given.target or list(TARGETS)
    shares = {target: SHARES.get(target, 1.0) for target in targets}
    total, seconds = sum(shares.values()), given.minutes * 60 / len(targets)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="crawlscope-fuzz-") as folder:
        server = EmbeddedPostgres(Path(folder))
        try:
            url = server.acquire()
            asyncio.run(_make_tables(url))
            with limited_memory():
                for target, share in shares.items():
                    count = max(1, round(given.inputs * share / total))
                    outcome = asyncio.run(run(target, url, given.first, count, time.monotonic() + seconds))
                    outcomes.append(outcome)
                    _show(outcome)
        finally:
            server.release()
    tried = sum(each.inputs for each in outcomes)
    found = sum(len(each.findings) for each in outcomes)
    print(f"{tried:,} inputs, {found} findings")
    sys.exit(1 if found else 0)


async def _make_tables(url: str) -> None:
    database = Database.open(url)
    await schema.upgrade(database)
    await database.close()


def _show(outcome: Outcome) -> None:
    cost = f"slowest {outcome.slowest_cpu_seconds:.2f} s of CPU  memory +{outcome.growth_mib:.0f} MiB"
    findings = f"{len(outcome.findings)} findings"
    print(f"{outcome.target:11} {outcome.inputs:>7,} inputs  {cost}  {findings}", flush=True)
    for finding in outcome.findings[:20]:
        print(f"  {finding}", flush=True)


if __name__ == "__main__":
    main()
