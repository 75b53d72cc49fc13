"""The protocol of index calls between processes of one machine: length-prefixed msgpack frames."""

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index.port import (
    EMPTY,
    ChunkId,
    Filters,
    Floats,
    Hit,
    IndexedDocument,
    Integers,
    SparseVector,
    StoredChunk,
)

MAX_FRAME_BYTES = 1024 * 1024 * 1024
"""A document is one frame: 4 kB for each chunk."""
_LENGTH = struct.Struct("!I")
INTEGER: Final = "I"
FLOAT: Final = "f"
"""Types of arrays, of four bytes; both ends are on one machine."""
ID_BYTES = 16

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


class Frames:
    """Cuts the data that arrives on a connection into messages."""

    def __init__(self) -> None:
        self._received = bytearray()

    def add(self, data: bytes) -> None:
        self._received += data

    def next(self) -> Message | None:
        """None before all of a message is there. Raises `FrameTooLarge` as soon as its length is known, and
        `ValueError` for data that is no message."""
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > MAX_FRAME_BYTES:
            raise FrameTooLarge(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        with memoryview(self._received) as received, received[_LENGTH.size : end] as body:
            message = msgpack.unpackb(body, strict_map_key=False)
        del self._received[:end]
        if not isinstance(message, dict):
            raise ValueError("a frame that is no message")  # noqa: TRY004 - like other unreadable data
        return message


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
    sparse = [pack_sparse(vector) for vector in document.sparse]
    packed: bytes = msgpack.packb(
        [
            *(document.url, document.title, document.language, document.crawl_ids, document.texts),
            [*document.parts],
            pack_floats(document.dense),
            [len(vector.indices) for vector in document.sparse],
            *(b"".join(terms for terms, _ in sparse), b"".join(weights for _, weights in sparse)),
        ]
    )
    return packed


def unpack_document(packed: bytes) -> IndexedDocument:
    url, title, language, crawl_ids, texts, parts, floats, *sparse = msgpack.unpackb(packed)
    dense: npt.NDArray[np.float32] = np.frombuffer(floats, dtype="<f4")
    return IndexedDocument(
        *(url, title, language, crawl_ids, texts),
        dense=dense.reshape(len(texts), -1) if len(dense) else EMPTY,
        sparse=list(_unpack_vectors(*sparse)),
        parts=parts,
    )


def _unpack_vectors(lengths: Sequence[int], terms: bytes, weights: bytes) -> Iterator[SparseVector]:
    """Lists, as the engine takes them."""
    all_terms = memoryview(terms).cast(INTEGER).tolist()
    all_weights = memoryview(weights).cast(FLOAT).tolist()
    for start, stop in pairwise(accumulate(lengths, initial=0)):
        yield SparseVector(all_terms[start:stop], all_weights[start:stop])


def pack_stored(stored: Mapping[ChunkId, StoredChunk]) -> list[tuple[bytes, str, bytes, str]]:
    return [(one, chunk.text, pack_floats(chunk.dense), chunk.parts) for one, chunk in stored.items()]


def unpack_stored(packed: Sequence[tuple[bytes, str, bytes, str]]) -> dict[ChunkId, StoredChunk]:
    return {one: StoredChunk(text, np.frombuffer(dense, "<f4"), parts) for one, text, dense, parts in packed}


def pack_filters(filters: Filters) -> Message:
    return dict(vars(filters))


def pack_hits(hits: Sequence[Hit]) -> list[bytes]:
    return [b"".join([hit.id for hit in hits]), array(FLOAT, [hit.score for hit in hits]).tobytes()]


def unpack_hits(packed: Sequence[bytes]) -> list[Hit]:
    ids, scores = packed
    chunks = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
    return Hit.all_of(chunks, memoryview(scores).cast(FLOAT).tolist())
