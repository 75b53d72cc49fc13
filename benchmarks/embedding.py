"""How many chunks a second the local embedder makes with each of its models, on one thread and on two, and
what CPU time and memory it takes.

    python -m benchmarks.embedding [--chunks 150] [--runs 5]

The chunks are cut from the docstrings of the standard library, as pages are: up to 200 tokens. Each number of
threads is measured in a process of its own, because a process's peak of memory never goes down.
"""

import argparse
import asyncio
import importlib
import inspect
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

from crawlscope.indexing.chunk import split
from crawlscope.indexing.embedders.common import load_minilm_tokenizer
from crawlscope.indexing.embedders.local import open_local
from crawlscope.indexing.embedders.models import LOCAL_MODELS, text_prefixes

CHUNK_TOKENS = 200
MODULES = (
    *("argparse", "asyncio", "collections", "concurrent.futures", "datetime", "decimal", "email.message"),
    *("http.client", "inspect", "logging", "os", "pathlib", "random", "statistics", "subprocess", "typing"),
)


@dataclass(frozen=True)
class Measurement:
    load_seconds: float
    chunks_per_second: list[float]
    cpu_ms: float
    """The CPU time of one chunk, on all threads."""
    idle_mb: float
    peak_mb: float


def documentation() -> str:
    """Markdown with a heading for each documented class and function of some modules."""
    return "\n\n".join(
        f"## {module}.{name}\n\n{inspect.getdoc(member)}"
        for module in MODULES
        for name, member in inspect.getmembers(importlib.import_module(module), callable)
        if not name.startswith("_") and inspect.getdoc(member)
    )


def real_like_chunks(number: int) -> list[str]:
    chunks = split(documentation(), load_minilm_tokenizer(), CHUNK_TOKENS)
    step = max(1, len(chunks) // number)
    return [chunk.text for chunk in chunks[::step][:number]]


async def measure(model: str, threads: int, texts: list[str], runs: int) -> Measurement:
    idle_mb = peak_mb()
    began = time.perf_counter()
    embedder = open_local(model, threads)
    load_seconds = time.perf_counter() - began
    prefix = text_prefixes(embedder.identity.model).passage
    texts = [f"{prefix}{text}" for text in texts]
    await embedder.embed(texts[:10])
    rates, cpu_began = [], time.process_time()
    for _ in range(runs):
        began = time.perf_counter()
        await embedder.embed(texts)
        rates.append(len(texts) / (time.perf_counter() - began))
    cpu_ms = (time.process_time() - cpu_began) * 1000 / runs / len(texts)
    await embedder.aclose()
    return Measurement(load_seconds, rates, cpu_ms, idle_mb, peak_mb())


def peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure_alone(model: str, threads: int, texts: list[str], runs: int) -> Measurement:
    return asyncio.run(measure(model, threads, texts, runs))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the local embedder.")
    parser.add_argument("--chunks", type=int, default=150)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    texts = real_like_chunks(arguments.chunks)
    tokenizer = load_minilm_tokenizer()
    tokens = statistics.mean(len(tokenizer.encode(text).ids) for text in texts)
    print(f"{len(texts)} chunks of {tokens:.0f} tokens on average, {arguments.runs} runs")
    for model, threads in product(LOCAL_MODELS, (1, 2)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            result = process.submit(measure_alone, model, threads, texts, arguments.runs).result()
        print(
            f"{model}, {threads} thread(s): {statistics.median(result.chunks_per_second):.1f} chunks/s"
            f" (best {max(result.chunks_per_second):.1f}), {result.cpu_ms:.1f} ms of CPU each, loaded in"
            f" {result.load_seconds * 1000:.0f} ms, peak {result.peak_mb:.0f} MB,"
            f" {result.peak_mb - result.idle_mb:.0f} of them the embedder's"
        )


if __name__ == "__main__":
    main()
