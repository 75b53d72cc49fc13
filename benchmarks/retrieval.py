"""How well search finds what judges found relevant: nDCG@10 and recall@10 of each mode, and of RRF.

    python -m benchmarks.retrieval FOLDER...

A folder holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels.tsv`
(`query-id`, `corpus-id`, `score`, with that header): the layout of the BEIR collections. Documents take the
way of pages: they are cut into chunks, encoded, kept in the embedded index and found by the search service.
"""

import argparse
import asyncio
import csv
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crawlscope.indexing.chunk import split
from crawlscope.indexing.embedders.local import LocalEmbedder
from crawlscope.indexing.embedders.port import Embedder
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.port import Filters, Hit, IndexedDocument, SearchIndex
from crawlscope.indexing.passages import passages, within_page
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.schemas import Mode, SearchRequest
from crawlscope.search.service import SearchService

CHUNK_TOKENS = 200
DEPTH = 10
RRF_K = 60
CANDIDATES = 100

Find = Callable[[str], Awaitable[list[str]]]


@dataclass(frozen=True)
class Collection:
    name: str
    documents: Mapping[str, tuple[str, str]]
    """Title and text."""
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, float]]


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
        queries={one: text for one, text in queries.items() if one in relevant},
        relevant=relevant,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def index_documents(
    collection: Collection, index: SearchIndex, embedder: Embedder, bm25: Bm25Encoder
) -> None:
    for document, (title, text) in collection.documents.items():
        chunks = split(text, embedder.tokenizer, CHUNK_TOKENS)
        texts = passages(title, text, chunks, embedder.tokenizer)
        sparse = [bm25.encode_document(text) for text in texts]
        dense = within_page(await embedder.embed(texts))
        await index.replace([IndexedDocument(document, texts=texts, dense=dense, sparse=sparse)])


def by_service(service: SearchService, mode: Mode) -> Find:
    async def find(query: str) -> list[str]:
        response = await service.search(SearchRequest(query=query, mode=mode, limit=DEPTH))
        return [result.url for result in response.results]

    return find


def by_reciprocal_ranks(index: SearchIndex, embedder: Embedder, bm25: Bm25Encoder) -> Find:
    async def find(query: str) -> list[str]:
        (dense,) = await embedder.embed([query])
        halves = await index.query(dense, bm25.encode_query(query), Filters(), CANDIDATES)
        scores: defaultdict[str, float] = defaultdict(float)
        for half in (halves.dense, halves.bm25):
            for rank, document in enumerate(_documents(half), start=1):
                scores[document] += 1 / (RRF_K + rank)
        return sorted(scores, key=lambda one: (-scores[one], one))[:DEPTH]

    return find


def _documents(hits: Sequence[Hit]) -> list[str]:
    return list(dict.fromkeys(hit.url for hit in hits))


@dataclass(frozen=True)
class Quality:
    ndcg: float
    recall: float


async def judge(collection: Collection, find: Find) -> Quality:
    judged = [
        _quality(await find(query), collection.relevant[one]) for one, query in collection.queries.items()
    ]
    return Quality(
        ndcg=sum(one.ndcg for one in judged) / len(judged),
        recall=sum(one.recall for one in judged) / len(judged),
    )


def _quality(found: Sequence[str], relevant: Mapping[str, float]) -> Quality:
    gains = [relevant.get(document, 0.0) for document in found]
    ideal = sorted(relevant.values(), reverse=True)[:DEPTH]
    wanted = [document for document, score in relevant.items() if score > 0]
    return Quality(
        ndcg=_discounted(gains) / _discounted(ideal),
        recall=sum(document in found for document in wanted) / len(wanted),
    )


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


async def measure(collection: Collection, embedder: Embedder) -> dict[str, Quality]:
    bm25 = Bm25Encoder()
    with tempfile.TemporaryDirectory() as folder:
        index = EdgeIndex.open(Path(folder, "index"), embedder.identity.dimension)
        await index_documents(collection, index, embedder, bm25)
        service = SearchService(index, embedder, bm25)
        ways = {
            "keyword": by_service(service, "keyword"),
            "semantic": by_service(service, "semantic"),
            "hybrid": by_service(service, "hybrid"),
            f"RRF (k={RRF_K})": by_reciprocal_ranks(index, embedder, bm25),
        }
        qualities = {name: await judge(collection, find) for name, find in ways.items()}
        await index.aclose()
    return qualities


async def report(folders: Sequence[Path]) -> None:
    embedder = LocalEmbedder()
    for collection in map(read_collection, folders):
        print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
        for name, quality in (await measure(collection, embedder)).items():
            print(f"  {name:12} nDCG@10 {100 * quality.ndcg:5.1f}   recall@10 {100 * quality.recall:5.1f}")
    await embedder.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description="nDCG@10 and recall@10 over collections in BEIR's layout")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    asyncio.run(report(parser.parse_args().folders))


if __name__ == "__main__":
    main()
