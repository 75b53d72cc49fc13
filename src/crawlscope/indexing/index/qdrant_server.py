"""The index on a Qdrant server or cluster, for more than one machine."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, cast
from uuid import UUID

import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from crawlscope.core.errors import IndexUnavailable, IndexUnusable, SettingsError, one_line
from crawlscope.indexing.index.fields import BM25, DENSE, KEYWORD_FIELDS, PREFIX_FIELD
from crawlscope.indexing.index.port import (
    FIRST_NAME,
    ChunkId,
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    Hit,
    IndexedDocument,
    IndexSize,
    OwnedIndexes,
    Rarities,
    SearchIndex,
    SparseVector,
    StoredChunk,
    chunk_payload,
)
from crawlscope.indexing.index.qdrant_common import (
    TEXT_FIELDS,
    as_floats,
    as_integers,
    by_crawl_ids,
    check_dimension,
    conditions,
    halves,
    has_phrase,
    portions,
    vectors_by_name,
)
from crawlscope.indexing.phrase import Phrase

COLLECTION = "crawlscope"
POINTS_PER_REQUEST = 128
URLS_PER_REQUEST = 100
IN_MEMORY = models.ScalarQuantization(
    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
)
"""A quarter of the vectors' size is searched, in memory; the best hits are scored anew from disk."""


class CollectionGone(IndexUnavailable):
    """It was deleted, or never made."""


class QdrantServerIndex(SearchIndex):
    """Checks the collection on first use, so that a process can start while the server is unavailable.

    A collection that is gone is not made again, because an empty one would pass for the lost one.
    """

    def __init__(self, client: AsyncQdrantClient, dimension: int, collection: str = COLLECTION) -> None:
        self._client = client
        self._dimension = dimension
        self._collection = collection
        self._checking = asyncio.Lock()
        self._checked = False

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        by_url = {document.url: document for document in documents}
        for document in by_url.values():
            check_dimension(document.dense, self._dimension)
        async with self._server() as server:
            for some in portions(list(by_url.values()), URLS_PER_REQUEST):
                stored = list[models.ExtendedPointId]()
                points = (point for document in some for point in _points(document))
                while batch := list(islice(points, POINTS_PER_REQUEST)):
                    await server.upsert(self._collection, batch, wait=True)
                    stored += (point.id for point in batch)
                others = models.Filter(
                    must=[_any_of([document.url for document in some])],
                    must_not=[models.HasIdCondition(has_id=stored)],
                )
                await server.delete(self._collection, models.FilterSelector(filter=others), wait=True)

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        async with self._server() as server:
            for ids, urls in by_crawl_ids(crawl_ids).items():
                for some in portions(urls, URLS_PER_REQUEST):
                    which = models.Filter(must=[_any_of(some)])
                    await server.set_payload(self._collection, {"crawl_ids": list(ids)}, which, wait=True)

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        if dense is not None:
            check_dimension(dense, self._dimension)
        vectors = vectors_by_name(dense, sparse)
        if not vectors:
            return Halves([], [])
        where = _filter(filters)
        requests = [
            models.QueryRequest(query=_client_vector(vector), using=name, filter=where, limit=limit)
            for name, vector in vectors.items()
        ]
        async with self._server() as server:
            answers = await server.query_batch_points(self._collection, requests)
        return halves(
            vectors,
            (
                Hit.all_of(
                    [UUID(str(point.id)).bytes for point in each.points],
                    [point.score for point in each.points],
                )
                for each in answers
            ),
        )

    async def payloads(self, ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkPayload]:
        async with self._server() as server:
            uuids = [UUID(bytes=one) for one in ids]
            found = await server.retrieve(self._collection, uuids, with_payload=True)
        ids_found = ((UUID(str(point.id)).bytes, point.payload or {}) for point in found)
        return {one: chunk_payload(one, payload) for one, payload in ids_found}

    async def containing(self, phrase: Phrase, ids: Sequence[ChunkId], fields: Sequence[str]) -> set[ChunkId]:
        async with self._server() as server:
            uuids = [UUID(bytes=one) for one in ids]
            found = await server.retrieve(self._collection, uuids, with_payload=TEXT_FIELDS)
        return {UUID(str(point.id)).bytes for point in found if has_phrase(phrase, point.payload, fields)}

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        async with self._server() as server:
            uuids = [UUID(bytes=one) for one in ids]
            found = await server.retrieve(
                self._collection, uuids, with_payload=["text", "parts"], with_vectors=[DENSE]
            )
        return {
            UUID(str(point.id)).bytes: StoredChunk(
                payload["text"],
                np.asarray(cast("Any", point.vector)[DENSE], np.float32),
                payload.get("parts", ""),
            )
            for point, payload in ((point, point.payload or {}) for point in found)
        }

    async def rarities(self, terms: Sequence[int]) -> Rarities:
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=[term], values=[1.0]),
                using=BM25,
                limit=1,
                with_vector=[BM25],
            )
            for term in terms
        ]
        async with self._server() as server:
            chunks = (await server.count(self._collection, exact=True)).count
            answers = await server.query_batch_points(self._collection, requests) if requests else []
        found = dict[int, float]()
        for term, answer in zip(terms, answers, strict=True):
            for point in answer.points:
                vector = cast("Any", point.vector)[BM25]
                found[term] = point.score / vector.values[vector.indices.index(term)]
        return Rarities(chunks, found)

    async def size(self) -> IndexSize:
        """The server does not say how many bytes it takes."""
        async with self._server() as server:
            return IndexSize((await server.count(self._collection, exact=True)).count, None)

    async def aclose(self) -> None:
        """The caller closes the client."""

    async def make(self) -> None:
        """Makes an empty collection; replaces an existing one."""
        schemas: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = {
            **dict.fromkeys(KEYWORD_FIELDS, models.PayloadSchemaType.KEYWORD),
            PREFIX_FIELD: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True),
        }
        with _translated():
            await self._client.delete_collection(self._collection)
            await self._client.create_collection(
                self._collection,
                vectors_config={
                    DENSE: models.VectorParams(
                        size=self._dimension, distance=models.Distance.COSINE, on_disk=True
                    )
                },
                sparse_vectors_config={BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                quantization_config=IN_MEMORY,
                on_disk_payload=True,
            )
            for field, schema in schemas.items():
                await self._client.create_payload_index(self._collection, field, schema)

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[AsyncQdrantClient]:
        try:
            with _translated():
                await self._check()
                yield self._client
        except CollectionGone:
            self._checked = False
            raise IndexUnavailable(
                f"the Qdrant collection {self._collection} is gone: run `crawlscope reindex`"
            ) from None

    async def _check(self) -> None:
        async with self._checking:
            if self._checked:
                return
            if not await self._client.collection_exists(self._collection):
                raise CollectionGone("there is no such collection")
            params = (await self._client.get_collection(self._collection)).config.params
            dense = params.vectors.get(DENSE) if isinstance(params.vectors, dict) else None
            if dense is None or BM25 not in (params.sparse_vectors or {}) or dense.size != self._dimension:
                raise IndexUnusable(
                    f"the Qdrant collection {self._collection} was not made for vectors of {self._dimension} "
                    "dimensions: run `crawlscope reindex`"
                )
            self._checked = True


class QdrantIndexes(OwnedIndexes):
    """One collection for each index, all through one client, which is closed with them."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._opened: dict[str, QdrantServerIndex] = {}

    async def open(self, name: str, dimension: int) -> SearchIndex:
        return self._index(name, dimension)

    async def make(self, name: str, dimension: int) -> None:
        await self._index(name, dimension).make()

    async def drop(self, name: str) -> None:
        self._opened.pop(name, None)
        with _translated():
            await self._client.delete_collection(collection_of(name))

    async def aclose(self) -> None:
        await self._client.close()

    def _index(self, name: str, dimension: int) -> QdrantServerIndex:
        if name not in self._opened:
            self._opened[name] = QdrantServerIndex(self._client, dimension, collection_of(name))
        return self._opened[name]


def collection_of(name: str) -> str:
    """`crawlscope`, and `crawlscope-2` for the second index of an installation."""
    return COLLECTION + name.removeprefix(FIRST_NAME)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UnexpectedResponse as error:
        refused = f"Qdrant refused a request: {one_line(error)}"
        if error.status_code == 404:
            raise CollectionGone(refused) from error
        if error.status_code in (401, 403):
            raise SettingsError(
                "Qdrant refuses the key: set CRAWLSCOPE_QDRANT_API_KEY to one that may write"
            ) from error
        raise IndexUnavailable(refused) from error
    except (ResponseHandlingException, ResourceExhaustedResponse) as error:
        raise IndexUnavailable(f"Qdrant does not answer: {one_line(error)}") from error


def _points(document: IndexedDocument) -> Iterator[models.PointStruct]:
    rows = zip(document.ids, document.chunk_texts, document.dense, document.sparse, strict=True)
    for one, text, dense, sparse in rows:
        payload = {**text, **document.payload}
        vector = {DENSE: as_floats(dense), BM25: _client_vector(sparse)}
        yield models.PointStruct(id=one, vector=vector, payload=payload)


def _any_of(urls: Sequence[str]) -> models.FieldCondition:
    return models.FieldCondition(key=PREFIX_FIELD, match=models.MatchAny(any=list(urls)))


def _client_vector(vector: Floats | SparseVector) -> list[float] | models.SparseVector:
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=as_integers(vector.indices), values=as_floats(vector.values))
    return as_floats(vector)


def _filter(filters: Filters) -> models.Filter | None:
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for condition in conditions(filters):
        prefix = condition.match == "prefix"
        match = (
            models.MatchPrefix(prefix=condition.texts[0])
            if prefix
            else models.MatchAny(any=list(condition.texts))
        )
        (must_not if condition.match == "none" else must).append(
            models.FieldCondition(key=condition.key, match=match)
        )
    return models.Filter(must=must, must_not=must_not) if must or must_not else None
