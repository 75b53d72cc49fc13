"""The protocol of index calls between processes of one machine: length-prefixed msgpack frames."""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import msgpack
import numpy as np
import numpy.typing as npt

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index.port import (
    EMPTY,
    Filters,
    Floats,
    Hit,
    IndexedDocument,
    Integers,
    SparseVector,
)

MAX_FRAME_BYTES = 1024 * 1024 * 1024
"""A document is one frame: 3 kB for each chunk."""
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
    return cast("Message", msgpack.unpackb(await reader.readexactly(length), strict_map_key=False))


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


def pack_document(document: IndexedDocument) -> bytes:
    packed: bytes = msgpack.packb(
        {
            **vars(document),
            "dense": pack_floats(document.dense),
            "sparse": [pack_sparse(vector) for vector in document.sparse],
        }
    )
    return packed


def unpack_document(packed: bytes) -> IndexedDocument:
    fields = msgpack.unpackb(packed)
    dense: npt.NDArray[np.float32] = np.frombuffer(fields["dense"], dtype="<f4")
    return IndexedDocument(
        **{
            **fields,
            "dense": dense.reshape(len(fields["texts"]), -1) if len(dense) else EMPTY,
            "sparse": [unpack_sparse(vector) for vector in fields["sparse"]],
        }
    )


def pack_filters(filters: Filters) -> Message:
    return dict(vars(filters))


def pack_hits(hits: Sequence[Hit]) -> list[Sequence[Any]]:
    return list(zip(*hits, strict=True))


def unpack_hits(packed: Sequence[Sequence[Any]]) -> list[Hit]:
    return list(map(Hit, *packed)) if packed else []
