"""Opens the engine's shard of an embedded index."""

import os
from contextlib import suppress
from pathlib import Path

import qdrant_edge as engine

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, one_line
from crawlscope.indexing.index.fields import BM25, DENSE, KEYWORD_FIELDS, PREFIX_FIELD

SEGMENTS, LOG = "segments", "wal"
"""Its folders."""
ON_DISK = engine.Memory.Cold
"""Read from mapped files. This applies to segments that are rebuilt: the one that grows is in memory."""
PAYLOAD_INDEXES = {
    PREFIX_FIELD: engine.KeywordIndexParams(prefix=True, memory=ON_DISK),
    **dict.fromkeys(KEYWORD_FIELDS, engine.KeywordIndexParams(memory=ON_DISK)),
}


def load(
    path: Path,
    dimension: int,
    graph: engine.HnswIndexConfig | None = None,
    optimizers: engine.EdgeOptimizersConfig | None = None,
) -> engine.EdgeShard:
    """Makes an empty one if it is missing. `graph` and `optimizers` are for its optimisation.

    Raises `IndexUnavailable` if another process has it open, `IndexUnusable` if its content cannot be read or
    holds vectors of another dimension.
    """
    config = engine.EdgeConfig(
        vectors={
            DENSE: engine.EdgeVectorParams(
                dimension, engine.Distance.Cosine, memory=ON_DISK, hnsw_config=graph
            )
        },
        sparse_vectors={BM25: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf, memory=ON_DISK)},
        optimizers=optimizers,
        payload_memory=ON_DISK,
        id_tracker_memory=ON_DISK,
        wal_enabled=True,
        max_search_threads=os.cpu_count(),  # the default is a multiple, whose threads wake each other
    )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        shard = engine.EdgeShard.load(str(path), config)
        # Some are missing if a process was killed while it made the shard.
        for field in PAYLOAD_INDEXES.keys() - shard.info().payload_schema.keys():
            shard.update(engine.UpdateOperation.create_field_index(field, PAYLOAD_INDEXES[field]))
    except Exception as error:
        raise _refusal(path, dimension, error) from error
    return shard


def sync(path: Path) -> None:
    """Brings all files of a folder onto the disk, while the engine changes them.

    With a new file comes its name. Some file systems refuse to do this for a folder.
    """
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError), Path(folder, name).open("rb") as file:  # the engine drops logs
                os.fsync(file)


def _refusal(path: Path, dimension: int, error: Exception) -> CrawlscopeError:
    """Distinguishes the engine's errors by their text, because it has one exception for all."""
    reason = one_line(error)
    if "WouldBlock" in reason:
        return IndexUnavailable(f"the index in {path} is in use by another process: stop that one first")
    if "config is incompatible" in reason:
        return IndexUnusable(
            f"the index in {path} does not hold vectors of {dimension} dimensions: run `crawlscope reindex`"
        )
    return IndexUnusable(f"the index in {path} cannot be read: run `crawlscope reindex` ({reason})")
