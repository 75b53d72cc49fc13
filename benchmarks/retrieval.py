"""How well search finds what judges found relevant: nDCG@10 and recall@10 of each mode, and of RRF.

    python -m benchmarks.retrieval FOLDER... [--set NAME=VALUE...] [--json FILE] [--against FILE]

A folder holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels.tsv`
(`query-id`, `corpus-id`, `score`, with that header): the layout of the BEIR collections. Each has a service
of its own: its documents are delivered to it as pages of a crawl, and its queries are asked over HTTP. The
difference between hybrid and its better half has the 95 % interval of a paired bootstrap. It searches
for up to 100 titles that only one document has, and asks up to 120 queries once more with one random edit in
one word.
"""

import argparse
import asyncio
import csv
import json
import math
import random
import re
import string
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from benchmarks.load import Connection
from benchmarks.service import API_SECRET, MeasuredService, measured_service
from crawlscope.core.service_file import WEBHOOK_PATH

DEPTH = 10
RRF_DEPTH = 50
RRF_K = 60
RESAMPLES = 10_000
TITLES = 100
MISSPELT = 120
CONNECTIONS = 4
MODES = ("keyword", "semantic", "hybrid")
RRF = f"RRF (k={RRF_K})"

_LONG_WORD = re.compile(r"[^\W\d_]{4,}")

Asked = TypeVar("Asked")
Ranking = Sequence[str]
"""Documents, best first."""


@dataclass(frozen=True)
class Collection:
    name: str
    documents: Mapping[str, tuple[str, str]]
    """Title and text."""
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, float]]

    def url(self, document: str) -> str:
        return f"https://{self.name.replace('_', '-')}.example/{quote(document, safe='')}"

    def own_titles(self) -> dict[str, str]:
        """Documents by titles that only they have: at most `TITLES`, chosen at random."""
        count = Counter(title for title, _ in self.documents.values())
        titles = {title: one for one, (title, _) in self.documents.items() if title and count[title] == 1}
        chosen = random.Random(7).sample(sorted(titles), min(TITLES, len(titles)))
        return {title: titles[title] for title in chosen}

    def misspelt(self) -> dict[str, str]:
        """At most `MISSPELT` queries, chosen at random, each with one edit; by their ids."""
        generator = random.Random(7)
        possible = [one for one, text in self.queries.items() if _LONG_WORD.search(text)]
        chosen = generator.sample(possible, min(MISSPELT, len(possible)))
        return {one: with_edit(self.queries[one], generator) for one in chosen}


@dataclass(frozen=True)
class Quality:
    """The quality for each query, in the order of the queries."""

    ndcg: list[float]
    recall: list[float]


def with_edit(query: str, generator: random.Random) -> str:
    """One letter of one longer word is left out, added or replaced, or changes places with the next."""
    word = generator.choice(list(_LONG_WORD.finditer(query)))
    place = generator.randrange(word.start(), word.end() - 1)
    before, first, second, after = query[:place], query[place], query[place + 1], query[place + 2 :]
    letter = generator.choice(string.ascii_lowercase)
    edits = (second, first + letter + second, letter + second, second + first)
    return before + generator.choice(edits) + after


def read_collection(folder: Path) -> Collection:
    relevant: defaultdict[str, dict[str, float]] = defaultdict(dict)
    with (folder / "qrels.tsv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            relevant[row["query-id"]][row["corpus-id"]] = float(row["score"])
    queries = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    return Collection(
        name=folder.name,
        documents={
            row["_id"]: (row.get("title") or "", row["text"]) for row in _rows(folder / "corpus.jsonl")
        },
        queries={one: text for one, text in queries.items() if max(relevant[one].values(), default=0) > 0},
        relevant=relevant,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def deliver(collection: Collection, service: MeasuredService) -> None:
    """Delivers each document as a page, and waits until all are searchable."""

    async def send(connection: Connection, document: str) -> None:
        title, text = collection.documents[document]
        url = collection.url(document)
        metadata = {"sourceURL": url, "url": url, "title": title, "statusCode": 200}
        page = {"markdown": text, "metadata": metadata}
        event = {"success": True, "type": "crawl.page", "id": collection.name, "data": [page]}
        status, answer = await connection.post(WEBHOOK_PATH, json.dumps(event).encode())
        if status != 202:
            raise SystemExit(f"the delivery of {document} was answered with {status}: {answer[:200]!r}")

    await on_connections(service, collection.documents, send)
    await service.await_outcomes(collection.name, len(collection.documents))


async def ask(collection: Collection, service: MeasuredService) -> dict[str, list[Ranking]]:
    """By mode, in the order of the queries."""
    documents = {collection.url(one): one for one in collection.documents}
    found: dict[tuple[str, str], Ranking] = {}

    async def search(connection: Connection, asked: tuple[str, str]) -> None:
        mode, query = asked
        limit = DEPTH if mode == "hybrid" else RRF_DEPTH
        body = json.dumps({"query": query, "mode": mode, "limit": limit})
        status, answer = await connection.post("/api/search", body.encode())
        if status != 200:
            raise SystemExit(f"the query {query!r} was answered with {status}: {answer[:200]!r}")
        found[asked] = [documents[result["url"]] for result in json.loads(answer)["results"]]

    queries = list(collection.queries.values())
    titles, misspelt = collection.own_titles(), collection.misspelt()
    every = [(mode, query) for mode in MODES for query in queries]
    more = [("hybrid", query) for query in (*titles, *misspelt.values())]
    await on_connections(service, dict.fromkeys([*every, *more]), search)
    if titles:
        first = sum(found["hybrid", title][:1] == [one] for title, one in titles.items())
        print(f"  {first} of {len(titles)} pages are first for their own title")
    chosen = replace(collection, queries={one: collection.queries[one] for one in misspelt})
    typed, edited = (
        100 * float(np.mean(judge(chosen, [found["hybrid", text] for text in texts]).ndcg))
        for texts in (chosen.queries.values(), misspelt.values())
    )
    print(f"  {len(misspelt)} queries: nDCG@10 {typed:.1f} as typed, {edited:.1f} with an edit")
    rankings = {mode: [found[mode, query] for query in queries] for mode in MODES}
    halves = zip(rankings["keyword"], rankings["semantic"], strict=True)
    return rankings | {RRF: [by_reciprocal_ranks(pair) for pair in halves]}


async def on_connections(
    service: MeasuredService,
    items: Mapping[Asked, object],
    send: Callable[[Connection, Asked], Awaitable[None]],
) -> None:
    waiting = iter(items)

    async def work() -> None:
        connection = await Connection.open(service.url, API_SECRET)
        for item in waiting:
            await send(connection, item)
        connection.close()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


def by_reciprocal_ranks(halves: Sequence[Ranking]) -> Ranking:
    scores: defaultdict[str, float] = defaultdict(float)
    for half in halves:
        for rank, document in enumerate(half, start=1):
            scores[document] += 1 / (RRF_K + rank)
    return sorted(scores, key=lambda one: (-scores[one], one))


def judge(collection: Collection, rankings: Sequence[Ranking]) -> Quality:
    ndcg, recall = [], []
    for query, ranking in zip(collection.queries, rankings, strict=True):
        relevant, found = collection.relevant[query], ranking[:DEPTH]
        ideal = sorted(relevant.values(), reverse=True)[:DEPTH]
        wanted = [document for document, score in relevant.items() if score > 0]
        ndcg.append(_discounted([relevant.get(one, 0.0) for one in found]) / _discounted(ideal))
        recall.append(sum(one in found for one in wanted) / len(wanted))
    return Quality(ndcg, recall)


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """In points, with the interval that 95 % of the resamples of the queries are in."""
    differences = 100 * (np.array(ours) - np.array(theirs))
    drawn = np.random.default_rng(7).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    return f"{differences.mean():+.1f} ({low:+.1f} to {high:+.1f})"


async def measure(collection: Collection, settings: Mapping[str, str]) -> dict[str, Quality]:
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    async with measured_service(**settings) as service:
        await deliver(collection, service)
        rankings = await ask(collection, service)
    return {name: judge(collection, ranked) for name, ranked in rankings.items()}


def report(qualities: Mapping[str, Quality], before: Mapping[str, Sequence[float]]) -> None:
    for name, quality in qualities.items():
        ndcg, recall = (100 * sum(values) / len(values) for values in (quality.ndcg, quality.recall))
        print(f"  {name:12} nDCG@10 {ndcg:5.1f}   recall@10 {recall:5.1f}")
    halves = [qualities[mode].ndcg for mode in ("keyword", "semantic")]
    hybrid = qualities["hybrid"].ndcg
    print(f"  hybrid against its better half: {difference(hybrid, max(halves, key=sum))}", flush=True)
    if before:
        earlier = [before[mode] for mode in ("keyword", "semantic")]
        print(f"  against the better half before: {difference(hybrid, max(earlier, key=sum))}")
        print(f"  against hybrid before: {difference(hybrid, before['hybrid'])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the service, without CRAWLSCOPE_",
    )
    parser.add_argument("--json", type=Path, help="write the nDCG@10 of each query to this file")
    parser.add_argument("--against", type=Path, help="compare with this file of an earlier run")
    given = parser.parse_args()
    settings = dict(each.split("=", 1) for each in given.set)
    earlier = json.loads(given.against.read_text()) if given.against else {}
    written = {}
    for collection in map(read_collection, given.folders):
        qualities = asyncio.run(measure(collection, settings))
        report(qualities, earlier.get(collection.name, {}))
        written[collection.name] = {name: quality.ndcg for name, quality in qualities.items()}
        if given.json:
            given.json.write_text(json.dumps(written) + "\n")


if __name__ == "__main__":
    main()
