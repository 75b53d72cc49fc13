"""The program that rebuilds the segments of a shard as one.

    python -m crawlscope.indexing.index.rebuilding FOLDER DIMENSION NEIGHBOURS NICE

It loads little, because it starts often: NumPy and the like would take longer than it takes to rebuild some
thousand chunks.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import qdrant_edge as engine

from crawlscope.indexing.index.edge_shard import PAYLOAD_INDEXES, SEGMENTS, load, sync

MAX_DELETED_SHARE = 0.25
PR_SET_PDEATHSIG = 1


def main(path: str, dimension: str, neighbours: str, nice: str) -> None:
    with suppress(AttributeError):  # Linux only; elsewhere it ends after its work
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(int(nice))
    with suppress(AttributeError):  # Linux only; this also ends the short time slices of the index process
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    graph = engine.HnswIndexConfig(int(neighbours), 100, 10_000, max_indexing_threads=1)
    into_one = engine.EdgeOptimizersConfig(
        deleted_threshold=MAX_DELETED_SHARE,
        vacuum_min_vector_number=1,
        default_segment_number=1,
        max_segment_size=2**31,
        indexing_threshold=1,
    )
    shard = load(Path(path), int(dimension), graph, into_one)
    for field, parameters in PAYLOAD_INDEXES.items():  # former versions had other ones
        shard.update(engine.UpdateOperation.create_field_index(field, parameters))
    chunks = shard.count(engine.CountRequest())
    shard.optimize()
    if shard.count(engine.CountRequest()) != chunks:
        sys.exit("the engine lost chunks")
    shard.flush()
    shard.close()
    sync(Path(path, SEGMENTS))  # a power failure finds all of them


if __name__ == "__main__":
    main(*sys.argv[1:])
