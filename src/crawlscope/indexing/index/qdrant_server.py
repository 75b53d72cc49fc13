"""The index on a Qdrant server or cluster, for more than one machine."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from crawlscope.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index.conditions import KEYWORD_FIELDS, PREFIX_FIELD, Condition, conditions
from crawlscope.indexing.index.port import (
    BM25,
    DENSE,
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    Hit,
    IndexedChunk,
    IndexSize,
    SearchIndex,
    SparseVector,
)
from crawlscope.indexing.index.vectors import as_floats, as_integers, check_dimension

COLLECTION = "crawlscope"
POINTS_PER_REQUEST = 128
IDS_PER_REQUEST = 1_000


class QdrantServerIndex(SearchIndex):
    """Makes the collection and its payload indexes when they are first needed, so that a server
    which is away at start is no reason not to start.
    """

    def __init__(self, client: AsyncQdrantClient, dimension: int, collection: str = COLLECTION) -> None:
        self._client = client
        self._dimension = dimension
        self._collection = collection
        self._preparing = asyncio.Lock()
        self._prepared = False

    async def upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        for chunk in chunks:
            check_dimension(chunk.dense, self._dimension)
        async with self._server() as server:
            for start in range(0, len(chunks), POINTS_PER_REQUEST):
                points = [_point(chunk) for chunk in chunks[start : start + POINTS_PER_REQUEST]]
                await server.upsert(self._collection, points, wait=True)

    async def cut(self, url: str, keep: int) -> None:
        of_document = models.FieldCondition(key="url", match=models.MatchValue(value=url))
        beyond = models.FieldCondition(key="chunk_index", range=models.Range(gte=keep))
        chosen = models.FilterSelector(filter=models.Filter(must=[of_document, beyond]))
        async with self._server() as server:
            await server.delete(self._collection, chosen, wait=True)

    async def set_crawl_ids(self, ids: Sequence[UUID], crawl_ids: Sequence[str]) -> None:
        async with self._server() as server:
            for start in range(0, len(ids), IDS_PER_REQUEST):
                chosen = models.HasIdCondition(has_id=list(ids[start : start + IDS_PER_REQUEST]))
                await server.set_payload(
                    self._collection,
                    {"crawl_ids": list(crawl_ids)},
                    models.Filter(must=[chosen]),
                    wait=True,
                )

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        if dense is not None:
            check_dimension(dense, self._dimension)
        requests = _requests(dense, sparse, _filter(filters), limit)
        if not requests:
            return Halves([], [])
        async with self._server() as server:
            answers = await server.query_batch_points(self._collection, list(requests.values()))
        halves = dict(zip(requests, map(_hits, answers), strict=True))
        return Halves(dense=halves.get(DENSE, []), bm25=halves.get(BM25, []))

    async def size(self) -> IndexSize:
        """The server does not say how many bytes it takes."""
        async with self._server() as server:
            return IndexSize((await server.count(self._collection, exact=True)).count, None)

    async def aclose(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[AsyncQdrantClient]:
        try:
            await self._prepare()
            yield self._client
        except UnexpectedResponse as error:
            self._prepared = self._prepared and error.status_code != 404
            raise _refusal(error) from error
        except (ResponseHandlingException, ResourceExhaustedResponse) as error:
            raise IndexUnavailable(f"Qdrant does not answer: {_one_line(error)}") from error

    async def _prepare(self) -> None:
        async with self._preparing:
            if self._prepared:
                return
            if not await self._client.collection_exists(self._collection):
                await self._create_collection()
            await self._check_collection()
            await self._index_fields()
            self._prepared = True

    async def _create_collection(self) -> None:
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config={
                    DENSE: models.VectorParams(size=self._dimension, distance=models.Distance.COSINE)
                },
                sparse_vectors_config={BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                on_disk_payload=True,
            )
        except UnexpectedResponse as error:
            if error.status_code != 409:  # another process was faster
                raise

    async def _check_collection(self) -> None:
        params = (await self._client.get_collection(self._collection)).config.params
        dense = params.vectors.get(DENSE) if isinstance(params.vectors, dict) else None
        if dense is None or BM25 not in (params.sparse_vectors or {}) or dense.size != self._dimension:
            raise IndexUnusable(
                f"the Qdrant collection {self._collection} was not made for vectors of {self._dimension} "
                "dimensions: go back to the embedder it was made with, or delete the collection and index "
                "the kept pages again"
            )

    async def _index_fields(self) -> None:
        for field in KEYWORD_FIELDS:
            await self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.KEYWORD)
        by_beginning = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True)
        await self._client.create_payload_index(self._collection, PREFIX_FIELD, by_beginning)


def _refusal(error: UnexpectedResponse) -> CrawlscopeError:
    if error.status_code in (401, 403):
        return SettingsError("Qdrant refuses the key: set CRAWLSCOPE_QDRANT_API_KEY to one that may write")
    return IndexUnavailable(f"Qdrant refused a request: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _point(chunk: IndexedChunk) -> models.PointStruct:
    return models.PointStruct(
        id=chunk.id,
        vector={DENSE: as_floats(chunk.dense), BM25: _sparse(chunk.sparse)},
        payload=dict(chunk.payload),
    )


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=as_integers(vector.indices), values=as_floats(vector.values))


def _requests(
    dense: Floats | None, sparse: SparseVector | None, where: models.Filter | None, limit: int
) -> dict[str, models.QueryRequest]:
    vectors: dict[str, list[float] | models.SparseVector] = {}
    if dense is not None:
        vectors[DENSE] = as_floats(dense)
    if sparse is not None and len(sparse.indices):
        vectors[BM25] = _sparse(sparse)
    return {
        name: models.QueryRequest(query=vector, using=name, filter=where, limit=limit, with_payload=True)
        for name, vector in vectors.items()
    }


def _hits(answer: models.QueryResponse) -> list[Hit]:
    return [
        Hit(UUID(str(point.id)), point.score, cast("ChunkPayload", point.payload)) for point in answer.points
    ]


def _filter(filters: Filters) -> models.Filter | None:
    must: list[models.Condition] = [_condition(condition) for condition in conditions(filters)]
    return models.Filter(must=must) if must else None


def _condition(condition: Condition) -> models.FieldCondition:
    match = (
        models.MatchPrefix(prefix=condition.text)
        if condition.match == "prefix"
        else models.MatchValue(value=condition.text)
    )
    return models.FieldCondition(key=condition.key, match=match)
