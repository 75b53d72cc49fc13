"""Trials of ideas about ranking: nDCG@10 of hybrid search with one thing changed at a time.

    python -m benchmarks.ranking_trials FOLDER... [--model NAME] [--vectors FOLDER]

The folders are those of `benchmarks.retrieval`. Chunks and vectors are made as for the index, then searched
exactly, without a service and without what it does besides: it corrects words, and lists pages first that
have the query as their title. `--model` is another model of the local embedder than the default one.
`--vectors` keeps the vectors for the next run.
"""

import argparse
import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from benchmarks.retrieval import Collection, by_reciprocal_ranks, judge, read_collection
from crawlscope.indexing import sparse
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.local import Floats, LocalEmbedder, LocalModel, MiniLm
from crawlscope.indexing.embedders.models import LOCAL_MODELS, PAGE_SHARE, page_share, text_prefixes
from crawlscope.indexing.index.port import Halves, Hit, chunk_id
from crawlscope.indexing.index.qdrant_common import idf
from crawlscope.indexing.language import ENGLISH, language_of
from crawlscope.indexing.parts import surpluses
from crawlscope.indexing.passages import passages
from crawlscope.indexing.prepare import within_page
from crawlscope.search import fusion, ranking
from crawlscope.search.fusion import dense_weight
from crawlscope.search.schemas import Mode
from crawlscope.search.service import PARTS_COMPARED

CHUNK_TOKENS = 200
FEEDBACK_PAGES = 3

Rank = Callable[[Halves, float], list[str]]
"""The URLs of what both halves found, by the share of the dense half."""

_WORD = re.compile(r"[^\W_]+")
_PATH_WORD = re.compile(r"[^\W\d_]{2,}")


class PlainMean:
    def weights(self, ids: Sequence[int]) -> Floats:
        return np.ones(len(ids), np.float32)


class WholeNames:
    tokenizer: Tokenizer

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids


FORMS: dict[str, tuple[type, ...]] = {
    "plain mean of all tokens": (PlainMean,),
    "names are not split into words": (WholeNames,),
    "plain mean, names not split": (PlainMean, WholeNames),
}
"""The parts that each leaves out of a model."""


@dataclass(frozen=True)
class Trial:
    """A collection with all that is compared of it."""

    collection: Collection
    urls: list[str]
    """The URL of each page."""
    pages: npt.NDArray[np.int64]
    """The number of each chunk's page."""
    chunk_texts: list[str]
    """With title and headings."""
    chunk_vectors: Floats
    """As the index has them."""
    query_vectors: Floats
    bm25: Floats
    """The score of each query (row) for each chunk."""
    language: str
    dense_weights: Sequence[float]
    """The weight for each query."""
    kind: type[LocalModel]
    page_share: float
    parts: Sequence[str] = ()
    """The parts of each chunk, or none."""

    @classmethod
    def of(cls, collection: Collection, kind: type[LocalModel], kept: Path | None) -> "Trial":
        tokenizer, pages, texts = kind().tokenizer, list[int](), list[str]()
        for number, (title, markdown) in enumerate(collection.documents.values()):
            text = clean(markdown)
            chunks = split(text, tokenizer, CHUNK_TOKENS)
            texts += passages(title, text, chunks, tokenizer)
            pages += [number] * len(chunks)
        vectors, queries, parts = embed(collection, texts, kind, kept)
        language = language_of(" ".join(collection.queries.values())) or ENGLISH
        urls = [collection.url(one) for one in collection.documents]
        bm25 = bm25_scores(collection, texts, language)
        shares = [dense_weight(kind.name, query, [language]) for query in collection.queries.values()]
        plain = cls(
            *(collection, urls, np.array(pages), texts, vectors, queries, bm25, language, shares, kind),
            page_share=page_share(kind.name),
        )
        return plain.with_vectors(vectors, queries, parts)

    def with_vectors(self, passage_vectors: Floats, queries: Floats, parts: Sequence[str]) -> "Trial":
        """The same with vectors of the chunks, without their shares of the page, and of the queries."""
        starts = np.flatnonzero(np.diff(self.pages, prepend=-1))
        pages = np.split(passage_vectors, starts[1:])
        mixed = np.vstack([within_page(rows, self.page_share) for rows in pages])
        lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
        vectors = np.asarray(mixed / lengths, np.float32)
        return replace(self, chunk_vectors=vectors, query_vectors=queries, parts=parts)

    def with_queries(self, vectors: Floats) -> "Trial":
        return replace(
            self, query_vectors=np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        )

    def ndcg(self, rank: Rank | None = None) -> float:
        """Times 100."""
        rank = rank or self.ranked
        documents = dict(zip(self.urls, self.collection.documents, strict=True))
        asked = zip(self.halves(), self.dense_weights, strict=True)
        ranked = [[documents[url] for url in rank(halves, share)[:10]] for halves, share in asked]
        return float(100 * np.mean(judge(self.collection, ranked).ndcg))

    def halves(self) -> Iterator[Halves]:
        dense = self.query_vectors @ self.chunk_vectors.T
        for query, bm25, scores in zip(self.query_vectors, self.bm25, dense, strict=True):
            by_meaning = self._raised(self._hits(scores), query)
            yield Halves(dense=by_meaning, bm25=[hit for hit in self._hits(bm25) if hit.score > 0])

    def _raised(self, hits: list[Hit], query: Floats) -> list[Hit]:
        if not self.parts:
            return hits
        near = [hit.id for hit in hits[:PARTS_COMPARED]]
        found = surpluses(query, {one: self.parts[self.number_of[one]] for one in near})
        return ranking.raise_by_parts(hits, found)

    def _hits(self, scores: Floats) -> list[Hit]:
        best = np.argsort(-scores, kind="stable")[: 2 * ranking.WINDOW]
        return [Hit(self.ids[number], float(scores[number]), self.ids[number][:12]) for number in best]

    @cached_property
    def ids(self) -> list[bytes]:
        return [chunk_id(self.urls[page], number) for number, page in enumerate(self.pages)]

    @cached_property
    def number_of(self) -> dict[bytes, int]:
        return {one: number for number, one in enumerate(self.ids)}

    @cached_property
    def url_of(self) -> dict[bytes, str]:
        return {one[:12]: self.urls[page] for one, page in zip(self.ids, self.pages, strict=True)}

    def with_weight(self, share: float) -> "Trial":
        return replace(self, dense_weights=[share] * len(self.dense_weights))

    def with_names(self, share: float) -> "Trial":
        """Another weight for queries with a name of code."""
        named = [share if each == fusion.NAMING_WEIGHT else each for each in self.dense_weights]
        return replace(self, dense_weights=named)

    def ranked(self, halves: Halves, dense_weight: float, mode: Mode = "hybrid") -> list[str]:
        asked = Halves(halves.dense if mode != "keyword" else [], halves.bm25 if mode != "semantic" else [])
        pages = ranking.rank_pages(asked, mode, dense_weight)
        return [self.url_of[page.document] for page in pages]

    def by_second_chunks(self, halves: Halves, dense_weight: float, share: float) -> list[str]:
        """In each half, a share of the score of a page's second chunk counts too."""
        both = []
        for half in (halves.dense, halves.bm25):
            floor = half[-1].score if len(half) >= ranking.WINDOW else 0.0
            seconds, seen = dict[bytes, float](), set[bytes]()
            for hit in half[: ranking.WINDOW]:
                if hit.document in seen:
                    seconds.setdefault(hit.document, share * (hit.score - floor))
                seen.add(hit.document)
            raised = [hit._replace(score=hit.score + seconds.get(hit.document, 0.0)) for hit in half]
            both.append(sorted(raised, key=lambda hit: -hit.score))
        return self.ranked(Halves(*both), dense_weight)

    def by_ranks(self, halves: Halves, _dense_weight: float) -> list[str]:
        found = [[self.url_of[hit.document] for hit in half[:50]] for half in (halves.bm25, halves.dense)]
        return list(by_reciprocal_ranks([list(dict.fromkeys(half)) for half in found]))

    def by_min_max(self, halves: Halves, dense_weight: float) -> list[str]:
        scores: dict[str, float] = {}
        for half, share in ((halves.bm25, 1 - dense_weight), (halves.dense, dense_weight)):
            near = half[: ranking.WINDOW]
            low, high = (near[-1].score, near[0].score) if near else (0.0, 1.0)
            best = {self.url_of[hit.document]: hit.score for hit in reversed(near)}
            for url, score in best.items():
                scores[url] = scores.get(url, 0) + share * (score - low) / ((high - low) or 1)
        return sorted(scores, key=lambda url: -scores[url])

    def with_pairs(self, share: float) -> "Trial":
        """A share of what BM25 gives to words of the query that follow each other in the chunk too."""
        encoder = sparse.Bm25Encoder()
        known: dict[str, list[int]] = {}

        def terms(text: str) -> list[int]:
            found = []
            for word in _WORD.findall(text):
                if word not in known:
                    known[word] = [int(t) for t in encoder.encode_query(word, [self.language]).indices[:1]]
                found += known[word]
            return found

        asked = [set(pairwise(terms(query))) for query in self.collection.queries.values()]
        every = set[tuple[int, int]]().union(*asked)
        postings: defaultdict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        for number, text in enumerate(self.chunk_texts):
            words = terms(text)
            length = sparse.K * (1 - sparse.B + sparse.B * len(words) / sparse.AVERAGE_CHUNK_WORDS)
            for pair, count in Counter(pair for pair in pairwise(words) if pair in every).items():
                postings[pair][number] = count * (sparse.K + 1) / (count + length)
        scores = self.bm25.copy()
        for row, pairs in zip(scores, asked, strict=True):
            for found in map(postings.__getitem__, pairs):
                value = share * idf(len(self.chunk_texts), len(found))
                row[list(found)] += np.float32(value) * np.array(list(found.values()), np.float32)
        return replace(self, bm25=scores)

    def with_path_words(self) -> "Trial":
        """Words of each page's URL that its title does not have, in what BM25 reads of each chunk."""
        more = []
        for url, (title, _) in zip(self.urls, self.collection.documents.values(), strict=True):
            words = dict.fromkeys(_PATH_WORD.findall(unquote(url).split("/", 3)[3]))
            more.append(" ".join(word for word in words if word.casefold() not in title.casefold()))
        texts = [f"{more[page]} {text}" for page, text in zip(self.pages, self.chunk_texts, strict=True)]
        return replace(self, bm25=bm25_scores(self.collection, texts, self.language))

    def with_first_chunks(self, share: float) -> "Trial":
        """The first chunk of each page has a share in the vectors of the others."""
        first = self.chunk_vectors[np.searchsorted(self.pages, self.pages)]
        mixed = (1 - share) * self.chunk_vectors + share * first
        return replace(self, chunk_vectors=mixed / np.linalg.norm(mixed, axis=1, keepdims=True))

    def with_feedback(self, share: float) -> "Trial":
        """Each query's vector moved towards the best chunks by meaning of the best pages."""
        moved = []
        dense = self.query_vectors @ self.chunk_vectors.T
        asked = zip(self.query_vectors, dense, self.halves(), self.dense_weights, strict=True)
        for query, scores, halves, weight in asked:
            best = [self.urls.index(url) for url in self.ranked(halves, weight)[:FEEDBACK_PAGES]]
            chunks = [max(np.flatnonzero(self.pages == page), key=lambda one: scores[one]) for page in best]
            moved.append((1 - share) * query + share * self.chunk_vectors[chunks].mean(axis=0))
        return self.with_queries(np.array(moved))


def embed(
    collection: Collection, texts: Sequence[str], kind: type[LocalModel], kept: Path | None
) -> tuple[Floats, Floats, list[str]]:
    """The vectors of the texts and of the queries, and the parts of the texts."""
    file = kept / f"{collection.name}-{kind.__name__}.npz" if kept else None
    if file and file.exists():
        with np.load(file) as vectors:
            return vectors["texts"], vectors["queries"], vectors["parts"].tolist()

    async def run() -> tuple[Floats, Floats, list[str]]:
        embedder, prefixes = LocalEmbedder(2, kind), text_prefixes(kind.name)
        vectors, parts = await embedder.embed_in_parts([f"{prefixes.passage}{text}" for text in texts])
        queries = await embedder.embed([f"{prefixes.query}{text}" for text in collection.queries.values()])
        await embedder.aclose()
        return vectors, queries, parts

    vectors, queries, parts = asyncio.run(run())
    if file:
        np.savez(file, texts=vectors, queries=queries, parts=parts)
    return vectors, queries, parts


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
            value = count * idf(len(texts), len(found))
            row[list(found)] += np.float32(value) * np.array(list(found.values()), np.float32)
    return scores


def model_named(name: str) -> type[LocalModel]:
    if name == LOCAL_MODELS[0]:
        return MiniLm
    from crawlscope.indexing.embedders.e5 import MultilingualE5  # noqa: PLC0415  # of an extra

    return MultilingualE5


def results(trial: Trial, kept: Path | None) -> Iterator[tuple[str, float]]:
    yield "as it is", trial.ndcg()
    yield from of_scores(trial)
    yield from of_vectors(trial, kept)


def of_scores(trial: Trial) -> Iterator[tuple[str, float]]:
    yield "semantic alone", trial.ndcg(partial(trial.ranked, mode="semantic"))
    yield "keyword alone", trial.ndcg(partial(trial.ranked, mode="keyword"))
    for share in (0.5, 0.6, 0.65, 0.7):
        yield f"{share} × dense for all queries", trial.with_weight(share).ndcg()
    for share in (0.3, 0.5):
        yield f"{share} × dense for names of code", trial.with_names(share).ndcg()
    for power in (1.0, 1.5):
        with patch.object(fusion, "EMPHASIS", power):
            yield f"scores to the power of {power:g}", trial.ndcg()
    for share in (0.1, 0.2):
        yield (
            f"{share} × the page's second chunk in each half",
            trial.ndcg(partial(trial.by_second_chunks, share=share)),
        )
    yield "0.2 × pairs of words in BM25", trial.with_pairs(0.2).ndcg()
    yield "words of the URL in BM25", trial.with_path_words().ndcg()
    yield "reciprocal ranks (k = 60)", trial.ndcg(trial.by_ranks)
    yield "min–max instead of standard deviations", trial.ndcg(trial.by_min_max)
    for window in (100, 300):
        with patch.object(ranking, "WINDOW", window):
            yield f"the {window} best chunks of each half", trial.ndcg()
    yield "no parts of chunks", replace(trial, parts=()).ndcg()
    for share in (0.25, 0.5):
        with patch.object(ranking, "PART_SHARE", share):
            yield f"{share} × the surplus of the best part", trial.ndcg()
    for words in (60.0, 150.0):
        with patch.object(sparse, "AVERAGE_CHUNK_WORDS", words):
            scores = bm25_scores(trial.collection, trial.chunk_texts, trial.language)
        yield f"BM25 with an average length of {words:g}", replace(trial, bm25=scores).ndcg()


def of_vectors(trial: Trial, kept: Path | None) -> Iterator[tuple[str, float]]:
    yield "0.1 of the page's first chunk in each vector", trial.with_first_chunks(0.1).ndcg()
    embedded = embed(trial.collection, trial.chunk_texts, trial.kind, kept)
    for share in {0.0, PAGE_SHARE} - {trial.page_share}:
        shared = replace(trial, page_share=share).with_vectors(*embedded)
        yield f"{share} of the page's mean in each vector", shared.ndcg()
    for name, without in FORMS.items():
        kind = type("".join(each.__name__ for each in (*without, trial.kind)), (*without, trial.kind), {})
        embedded = embed(trial.collection, trial.chunk_texts, kind, kept)
        yield name, trial.with_vectors(*embedded).ndcg()
    for share in (0.2, 0.3):
        yield f"query vector moved {share} to the best pages", trial.with_feedback(share).ndcg()
    centre = trial.chunk_vectors.mean(axis=0)
    yield (
        "query vector moved 0.4 from the mean",
        trial.with_queries(trial.query_vectors - 0.4 * centre).ndcg(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--model", choices=LOCAL_MODELS, default=LOCAL_MODELS[0])
    parser.add_argument("--vectors", type=Path, metavar="FOLDER", help="keep the vectors here")
    given = parser.parse_args()
    if given.vectors:
        given.vectors.mkdir(parents=True, exist_ok=True)
    differences: dict[str, list[float]] = {}
    for folder in given.folders:
        trial = Trial.of(read_collection(folder), model_named(given.model), given.vectors)
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
