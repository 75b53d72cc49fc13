"""What ideas about ranking are worth: nDCG@10 of hybrid search with one thing changed at a time.

    python -m benchmarks.ranking_trials FOLDER... [--vectors FOLDER]

The folders are those of `benchmarks.retrieval`. Chunks and vectors are made as for the index, then searched
exactly, without a service and without what it does besides: it corrects words, and lists pages first that
have the query as their title. `--vectors` keeps the vectors for the next run.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from benchmarks.retrieval import Collection, by_reciprocal_ranks, judge, read_collection
from crawlscope.indexing import passages as indexed_passages
from crawlscope.indexing import sparse
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.common import load_minilm_tokenizer
from crawlscope.indexing.embedders.local import LocalEmbedder, MiniLm, Weights
from crawlscope.indexing.index.port import Halves, Hit, chunk_id
from crawlscope.indexing.language import ENGLISH, language_of
from crawlscope.indexing.passages import passages
from crawlscope.indexing.prepare import within_page
from crawlscope.search import ranking
from crawlscope.search.fusion import DENSE_WEIGHT, dense_weight
from crawlscope.search.schemas import Mode

CHUNK_TOKENS = 200
MODELS: dict[str, type[MiniLm]] = {}
FEEDBACK_PAGES = 3

Floats = npt.NDArray[np.float32]
Rank = Callable[[Halves], list[str]]


def model(name: str) -> Callable[[type[MiniLm]], type[MiniLm]]:
    def register(kind: type[MiniLm]) -> type[MiniLm]:
        MODELS[name] = kind
        return kind

    return register


@model("plain mean of all tokens")
class PlainMean(MiniLm):
    def weights(self, ids: Sequence[int]) -> Weights:
        return np.ones(len(ids), np.float32)


@model("names are not split into words")
class WholeNames(MiniLm):
    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids


@model("plain mean, names not split")
class Published(PlainMean, WholeNames):
    """The model as it was published."""


@dataclass(frozen=True)
class Trial:
    """A collection with all that is compared of it."""

    collection: Collection
    urls: list[str]
    """Of each page."""
    pages: npt.NDArray[np.int64]
    """Of each chunk, the number of its page."""
    chunk_texts: list[str]
    """With title and headings."""
    chunk_vectors: Floats
    """As the index has them."""
    query_vectors: Floats
    bm25: Floats
    """The score of each query (row) for each chunk."""
    dense_weight: float = DENSE_WEIGHT

    @classmethod
    def of(cls, collection: Collection, kept: Path | None) -> "Trial":
        tokenizer, pages, texts = load_minilm_tokenizer(), list[int](), list[str]()
        for number, (title, markdown) in enumerate(collection.documents.values()):
            text = clean(markdown)
            chunks = split(text, tokenizer, CHUNK_TOKENS)
            texts += passages(title, text, chunks, tokenizer)
            pages += [number] * len(chunks)
        vectors, queries = embed(collection, texts, MiniLm, kept)
        language = language_of(" ".join(collection.queries.values())) or ENGLISH
        urls = [collection.url(one) for one in collection.documents]
        bm25 = bm25_scores(collection, texts, language)
        share = dense_weight(MiniLm.name, [language])
        plain = cls(collection, urls, np.array(pages), texts, vectors, queries, bm25, share)
        return plain.with_vectors(vectors, queries)

    def with_vectors(self, passage_vectors: Floats, queries: Floats) -> "Trial":
        """Of the chunks, without their shares of the page, and of the queries."""
        starts = np.flatnonzero(np.diff(self.pages, prepend=-1))
        mixed = np.vstack([within_page(rows) for rows in np.split(passage_vectors, starts[1:])])
        lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
        return replace(self, chunk_vectors=np.asarray(mixed / lengths, np.float32), query_vectors=queries)

    def with_queries(self, vectors: Floats) -> "Trial":
        return replace(
            self, query_vectors=np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        )

    def ndcg(self, rank: Rank | None = None) -> float:
        """Times 100."""
        rank = rank or self.ranked
        documents = dict(zip(self.urls, self.collection.documents, strict=True))
        ranked = [[documents[url] for url in rank(halves)[:10]] for halves in self.halves()]
        return float(100 * np.mean(judge(self.collection, ranked).ndcg))

    def halves(self) -> Iterator[Halves]:
        for bm25, dense in zip(self.bm25, self.query_vectors @ self.chunk_vectors.T, strict=True):
            yield Halves(dense=self._hits(dense), bm25=[hit for hit in self._hits(bm25) if hit.score > 0])

    def _hits(self, scores: Floats) -> list[Hit]:
        best = np.argsort(-scores, kind="stable")[: 2 * ranking.WINDOW]
        return [Hit(self.ids[number], float(scores[number]), self.ids[number][:12]) for number in best]

    @cached_property
    def ids(self) -> list[bytes]:
        return [chunk_id(self.urls[page], number) for number, page in enumerate(self.pages)]

    @cached_property
    def url_of(self) -> dict[bytes, str]:
        return {one[:12]: self.urls[page] for one, page in zip(self.ids, self.pages, strict=True)}

    def ranked(self, halves: Halves, mode: Mode = "hybrid") -> list[str]:
        asked = Halves(halves.dense if mode != "keyword" else [], halves.bm25 if mode != "semantic" else [])
        pages = ranking.rank_pages(asked, mode, self.dense_weight)
        return [self.url_of[page.document] for page in pages]

    def by_ranks(self, halves: Halves) -> list[str]:
        found = [[self.url_of[hit.document] for hit in half[:50]] for half in (halves.bm25, halves.dense)]
        return list(by_reciprocal_ranks([list(dict.fromkeys(half)) for half in found]))

    def by_min_max(self, halves: Halves) -> list[str]:
        scores: dict[str, float] = {}
        for half, share in ((halves.bm25, 1 - self.dense_weight), (halves.dense, self.dense_weight)):
            near = half[: ranking.WINDOW]
            low, high = (near[-1].score, near[0].score) if near else (0.0, 1.0)
            best = {self.url_of[hit.document]: hit.score for hit in reversed(near)}
            for url, score in best.items():
                scores[url] = scores.get(url, 0) + share * (score - low) / ((high - low) or 1)
        return sorted(scores, key=lambda url: -scores[url])

    def with_feedback(self, share: float) -> "Trial":
        """Each query's vector moved towards the best chunks by meaning of the best pages."""
        moved = []
        dense = self.query_vectors @ self.chunk_vectors.T
        for query, scores, halves in zip(self.query_vectors, dense, self.halves(), strict=True):
            best = [self.urls.index(url) for url in self.ranked(halves)[:FEEDBACK_PAGES]]
            chunks = [max(np.flatnonzero(self.pages == page), key=lambda one: scores[one]) for page in best]
            moved.append((1 - share) * query + share * self.chunk_vectors[chunks].mean(axis=0))
        return self.with_queries(np.array(moved))


def embed(
    collection: Collection, texts: Sequence[str], kind: type[MiniLm], kept: Path | None
) -> tuple[Floats, Floats]:
    """Of the texts, and of the queries."""
    file = kept / f"{collection.name}-{kind.__name__}.npz" if kept else None
    if file and file.exists():
        with np.load(file) as vectors:
            return vectors["texts"], vectors["queries"]

    async def run() -> tuple[Floats, Floats]:
        embedder = LocalEmbedder(2, kind)
        vectors = await embedder.embed(texts), await embedder.embed(list(collection.queries.values()))
        await embedder.aclose()
        return vectors

    vectors = asyncio.run(run())
    if file:
        np.savez(file, texts=vectors[0], queries=vectors[1])
    return vectors


def bm25_scores(collection: Collection, texts: Sequence[str], language: str) -> Floats:
    """With the IDF of the engine."""
    encoder = sparse.Bm25Encoder()
    postings: dict[int, dict[int, float]] = {}
    for number, text in enumerate(texts):
        vector = encoder.encode_document(text, language)
        for term, weight in zip(vector.indices, vector.values, strict=True):
            postings.setdefault(int(term), {})[number] = float(weight)
    scores = np.zeros((len(collection.queries), len(texts)), np.float32)
    for row, query in zip(scores, collection.queries.values(), strict=True):
        vector = encoder.encode_query(query, [language])
        for term, count in zip(vector.indices, vector.values, strict=True):
            found = postings.get(int(term), {})
            idf = np.log((len(texts) - len(found) + 0.5) / (len(found) + 0.5) + 1)
            row[list(found)] += np.float32(count * idf) * np.array(list(found.values()), np.float32)
    return scores


def results(trial: Trial, kept: Path | None) -> Iterator[tuple[str, float]]:
    yield "as it is", trial.ndcg()
    yield "semantic alone", trial.ndcg(partial(trial.ranked, mode="semantic"))
    yield "keyword alone", trial.ndcg(partial(trial.ranked, mode="keyword"))
    for share in (0.5, 0.55, 0.65, 0.7):
        yield f"{share} × dense", replace(trial, dense_weight=share).ndcg()
    yield "reciprocal ranks (k = 60)", trial.ndcg(trial.by_ranks)
    yield "min–max instead of standard deviations", trial.ndcg(trial.by_min_max)
    for window in (100, 300):
        with patch.object(ranking, "WINDOW", window):
            yield f"the {window} best chunks of each half", trial.ndcg()
    vectors, queries = embed(trial.collection, trial.chunk_texts, MiniLm, kept)
    with patch.object(indexed_passages, "PAGE_SHARE", 0.0):
        yield "no share of the page in a chunk's vector", trial.with_vectors(vectors, queries).ndcg()
    for name, kind in MODELS.items():
        vectors, queries = embed(trial.collection, trial.chunk_texts, kind, kept)
        yield name, trial.with_vectors(vectors, queries).ndcg()
    for share in (0.2, 0.3):
        yield f"query vector moved {share} to the best pages", trial.with_feedback(share).ndcg()
    centre = trial.chunk_vectors.mean(axis=0)
    yield (
        "query vector moved 0.4 from the mean",
        trial.with_queries(trial.query_vectors - 0.4 * centre).ndcg(),
    )
    for words in (60.0, 150.0):
        with patch.object(sparse, "AVERAGE_CHUNK_WORDS", words):
            scores = bm25_scores(trial.collection, trial.chunk_texts, ENGLISH)
        yield f"BM25 with an average length of {words:g}", replace(trial, bm25=scores).ndcg()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--vectors", type=Path, metavar="FOLDER", help="keep the vectors here")
    given = parser.parse_args()
    if given.vectors:
        given.vectors.mkdir(parents=True, exist_ok=True)
    differences: dict[str, list[float]] = {}
    for folder in given.folders:
        trial = Trial.of(read_collection(folder), given.vectors)
        base = 0.0
        print(folder.name, flush=True)
        for name, ndcg in results(trial, given.vectors):
            base = base or ndcg
            differences.setdefault(name, []).append(ndcg - base)
            print(f"  {name:45} {ndcg:5.1f} {ndcg - base:+5.1f}", flush=True)
    print(f"mean of {len(given.folders)}")
    for name, values in differences.items():
        print(f"  {name:45} {np.mean(values):+5.2f}")


if __name__ == "__main__":
    main()
