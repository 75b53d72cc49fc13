"""How many pages a second become searchable, from the HTTP request on, if embedding costs nothing.

    python -m benchmarks.ingest [--quick] [--pages N] [--rounds N] [--json FILE]

The same pages go through the ingestion pipelines of other projects, where `make benchmark-setup` has
installed them: in turns, with the same embedding server, and chunks of about the same size. These
pipelines get the pages as objects and write into memory, so their work is less.
"""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.instant_embedder import instant_embedder
from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.peers import PeerResult, Task, installed, run_peer
from benchmarks.service import Ingested, instant_service

PART = "ingest"
MIN_RATIO = 3.0


async def measure(options: Options) -> Sequence[Row]:
    pages = options.pages_or(200, 60)
    ours: list[Ingested] = []
    theirs: defaultdict[str, list[PeerResult]] = defaultdict(list)
    with instant_embedder() as embedder_url:
        async with instant_service() as service:
            for turn in range(options.rounds_or(3)):
                load = Load(f"turn-{turn}", pages)
                ours.append(await service.ingest(load))
                for peer in installed():
                    theirs[peer].append(await run_peer(Task(peer, embedder_url, load.website, pages)))
    return _rows(pages, ours, theirs)


def _rows(pages: int, ours: Sequence[Ingested], theirs: dict[str, list[PeerResult]]) -> list[Row]:
    rate = statistics.median(each.pages_per_second for each in ours)
    peers = {
        peer: statistics.median(pages / result.seconds for result in results)
        for peer, results in theirs.items()
    }
    best = max(peers, key=peers.__getitem__, default=None)
    against = "" if best is None else f"{best} {number(peers[best])}"
    ratio = None if best is None else rate / peers[best]
    at_least = None if best is None else MIN_RATIO
    return [
        Row(PART, "HTTP request to searchable", rate, "pages/s", against, ratio, at_least),
        *(
            Row(PART, f"– {peer} {installed()[peer]}", peers[peer], "pages/s", _described(pages, results))
            for peer, results in theirs.items()
        ),
    ]


def _described(pages: int, results: Sequence[PeerResult]) -> str:
    cpu = statistics.median(1000 * result.cpu_seconds / pages for result in results)
    return f"CPU {number(cpu)} ms, {number(results[0].chunks / pages)} chunks a page"


if __name__ == "__main__":
    run_alone(measure, __doc__)
