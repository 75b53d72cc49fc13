"""The protocol of index calls between processes of one machine: length-prefixed msgpack frames."""

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast
from uuid import UUID

import msgpack
import numpy as np

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index.port import (
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    Hit,
    IndexedChunk,
    Integers,
    SparseVector,
)

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct("!I")

Message: TypeAlias = dict[str, Any]


class FrameTooLarge(CrawlscopeError):
    code = "frame_too_large"


_ERRORS = {error.code: error for error in (IndexUnavailable, IndexUnusable, SettingsError)}


def frame(message: Message) -> bytes:
    """Raises `FrameTooLarge`."""
    body: bytes = msgpack.packb(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"an index call of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> Message:
    """Raises `IncompleteReadError` at the end of the stream, `FrameTooLarge` before reading the body."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return cast("Message", msgpack.unpackb(await reader.readexactly(length)))


def pack_error(error: CrawlscopeError) -> list[str]:
    return [error.code, str(error)]


def unpack_error(packed: Sequence[str]) -> CrawlscopeError:
    code, text = packed
    return _ERRORS.get(code, CrawlscopeError)(text)


def pack_floats(values: Floats) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


def unpack_floats(packed: bytes) -> Floats:
    return np.frombuffer(packed, dtype="<f4")


def pack_sparse(vector: SparseVector) -> list[bytes]:
    return [np.asarray(vector.indices, dtype="<u4").tobytes(), pack_floats(vector.values)]


def unpack_sparse(packed: Sequence[bytes]) -> SparseVector:
    indices: Integers = np.frombuffer(packed[0], dtype="<u4")
    return SparseVector(indices, unpack_floats(packed[1]))


def pack_ids(ids: Iterable[UUID]) -> bytes:
    return b"".join(one.bytes for one in ids)


def unpack_ids(packed: bytes) -> list[UUID]:
    return [UUID(bytes=packed[start : start + 16]) for start in range(0, len(packed), 16)]


def pack_chunk(chunk: IndexedChunk) -> bytes:
    packed: bytes = msgpack.packb(
        [chunk.id.bytes, pack_floats(chunk.dense), pack_sparse(chunk.sparse), chunk.payload]
    )
    return packed


def unpack_chunk(packed: bytes) -> IndexedChunk:
    identity, dense, sparse, payload = msgpack.unpackb(packed)
    return IndexedChunk(UUID(bytes=identity), unpack_floats(dense), unpack_sparse(sparse), payload)


def pack_filters(filters: Filters) -> dict[str, str | None]:
    return dict(vars(filters))


def pack_halves(halves: Halves) -> dict[str, list[Any]]:
    return {
        "dense": [_pack_hit(hit) for hit in halves.dense],
        "bm25": [_pack_hit(hit) for hit in halves.bm25],
    }


def unpack_halves(packed: dict[str, list[Any]]) -> Halves:
    return Halves(
        dense=[_unpack_hit(hit) for hit in packed["dense"]],
        bm25=[_unpack_hit(hit) for hit in packed["bm25"]],
    )


def _pack_hit(hit: Hit) -> tuple[bytes, float, ChunkPayload]:
    return hit.id.bytes, hit.score, hit.payload


def _unpack_hit(packed: Sequence[Any]) -> Hit:
    identity, score, payload = packed
    return Hit(UUID(bytes=identity), score, payload)
