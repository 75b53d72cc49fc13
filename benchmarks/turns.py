"""How long a small page is embedded beside a giant one, and what that costs in speed.

    python -m benchmarks.turns [--small 25] [--giant 2700] [--runs 3]

Both are given to one local embedder at once, as the pages that a worker has in progress are. With fair turns
the small page takes about twice as long as alone: it shares the threads with one other.
"""

import argparse
import asyncio
import statistics
import time

from benchmarks.embedding import real_like_chunks
from crawlscope.indexing.embedders.local import LocalEmbedder

MAX_RATIO = 3.0


async def measure(threads: int, small: list[str], giant: list[str], runs: int) -> float:
    """Prints what it measures; returns how many times as long the small page takes beside the giant one."""
    embedder = LocalEmbedder(threads)
    await embedder.embed(small)
    alone = statistics.median([await seconds(embedder, small) for _ in range(runs)])
    rate_alone = len(giant) / await seconds(embedder, giant)
    beside, rates = [], []
    for _ in range(runs):
        began = time.perf_counter()
        embedding = asyncio.create_task(embedder.embed(giant))
        await asyncio.sleep(0)
        beside.append(await seconds(embedder, small))
        await embedding
        rates.append((len(giant) + len(small)) / (time.perf_counter() - began))
    await embedder.aclose()
    ratio = statistics.median(beside) / alone
    print(
        f"{threads} thread(s): {len(small)} chunks in {alone:.2f} s alone, {statistics.median(beside):.2f} s"
        f" beside {len(giant)} ({ratio:.1f} times as long);"
        f" {rate_alone:.1f} chunks/s for the giant page alone, {statistics.median(rates):.1f} for both"
    )
    return ratio


async def seconds(embedder: LocalEmbedder, texts: list[str]) -> float:
    began = time.perf_counter()
    await embedder.embed(texts)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a small page beside a giant one.")
    parser.add_argument("--small", type=int, default=25)
    parser.add_argument("--giant", type=int, default=2_700)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()

    chunks = real_like_chunks(arguments.giant)
    giant = (chunks * (arguments.giant // len(chunks) + 1))[: arguments.giant]
    small = chunks[:: max(1, len(chunks) // arguments.small)][: arguments.small]
    ratios = [asyncio.run(measure(threads, small, giant, arguments.runs)) for threads in (1, 2)]
    if max(ratios) > MAX_RATIO:
        raise SystemExit(
            f"A small page waits too long: {max(ratios):.1f} times as long as alone, at most {MAX_RATIO}."
        )


if __name__ == "__main__":
    main()
