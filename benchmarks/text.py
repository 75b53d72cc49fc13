"""The cost of a page's text: CPU time of each step from its Markdown to the embedded and indexed text.

    python -m benchmarks.text [--pages N] [--rounds N] [--json FILE]

Each step is measured alone on real pages. Its time is the shortest of all rounds, because other programs on
the machine only make it longer. Then pages are prepared concurrently, as a worker does, and a task that wakes
up every millisecond measures how late it was because the event loop was blocked, also beside a page of 2 MB.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.pages import pages_of_site
from benchmarks.part import Options, Row, number, run_alone
from crawlscope.core.settings import Settings
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.common import load_minilm_tokenizer
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.language import language_of
from crawlscope.indexing.passages import passages
from crawlscope.indexing.prepare import DocumentPreparer, Lanes
from crawlscope.indexing.schemas import IndexDocumentRequest
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.timing import scope

PART = "text"
MAX_CPU_MS = 6.0
AT_ONCE = 8
LARGE = 2_000_000


class NoEmbedder:
    """Takes no time, so that only the text's is measured."""

    identity = EmbedderIdentity("none", "none", "", 1)
    max_tokens = 254

    def __init__(self) -> None:
        self.tokenizer = load_minilm_tokenizer()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), 1), np.float32)

    async def aclose(self) -> None: ...


def milliseconds(step: Callable[[], Any]) -> tuple[float, Any]:
    began = time.thread_time()
    result = step()
    return (time.thread_time() - began) * 1000, result


def steps(page: str, tokenizer: Any, max_tokens: int, bm25: Bm25Encoder) -> dict[str, float]:
    """CPU milliseconds of each step."""
    cleaning, text = milliseconds(lambda: clean(page))
    language, _ = milliseconds(lambda: language_of(text))
    splitting, chunks = milliseconds(lambda: split(text, tokenizer, max_tokens))
    joining, texts = milliseconds(lambda: passages("Title", text, chunks, tokenizer))
    encoding, _ = milliseconds(lambda: bm25.encode_documents(texts))
    return {
        "clean": cleaning,
        "language": language,
        "split": splitting,
        "passages": joining,
        "bm25": encoding,
    }


async def measure(options: Options) -> Sequence[Row]:
    pages = pages_of_site(options.pages)
    with scope(collect=lambda _: None):
        return [*_steps_rows(pages, options.rounds or 5), *await _preparation_rows(pages)]


def _steps_rows(pages: list[str], rounds: int) -> list[Row]:
    tokenizer, bm25, max_tokens = load_minilm_tokenizer(), Bm25Encoder(), Settings().chunk_tokens
    first = [sum(steps(page, tokenizer, max_tokens, bm25).values()) for page in pages]
    measured = [[steps(page, tokenizer, max_tokens, bm25) for page in pages] for _ in range(rounds)]
    best = [{name: min(each[name] for each in one) for name in one[0]} for one in zip(*measured, strict=True)]
    total = statistics.median(sum(each.values()) for each in best)
    against = f"first time {number(statistics.median(first))} ms"
    size = f"a page of {statistics.median(map(len, pages)) / 1000:.0f} kB"
    return [
        Row(PART, f"text of {size}, median", total, "ms of CPU", against, at_most=MAX_CPU_MS),
        *(
            Row(PART, f"– {name}", statistics.median(each[name] for each in best), "ms of CPU")
            for name in best[0]
        ),
    ]


async def _preparation_rows(pages: list[str]) -> list[Row]:
    recipe = Recipe(NoEmbedder.identity, Settings().chunk_tokens)
    preparer = DocumentPreparer(0, recipe, NoEmbedder(), Bm25Encoder(), Lanes())

    async def prepare(page: str) -> None:
        await preparer.prepare(IndexDocumentRequest(url="https://site.example/", markdown=page), None)

    async def prepare_all() -> None:
        for start in range(0, len(pages), AT_ONCE):
            await asyncio.gather(*map(prepare, pages[start : start + AT_ONCE]))

    await prepare_all()
    began = time.process_time()
    for _ in range(3):
        await prepare_all()
    milliseconds = (time.process_time() - began) * 1000 / 3 / len(pages)
    rows = [Row(PART, f"{AT_ONCE} pages prepared at once", milliseconds, "ms of CPU a page")]
    large = ("\n\n".join(pages) * 9)[:LARGE]
    for name, beside in (("", []), (" beside a page of 2 MB", [large])):
        late = list[float]()
        watching = asyncio.create_task(_watch(late))
        await asyncio.gather(prepare_all(), *map(prepare, beside))
        watching.cancel()
        median, highest, longest = np.percentile(late, [50, 99, 100])
        against = f"p99 {number(highest)} ms, longest {number(longest)} ms"
        rows.append(Row(PART, f"– a task was late{name}", float(median), "ms", against))
    return rows


async def _watch(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - began) * 1000 - 1)


if __name__ == "__main__":
    run_alone(measure, __doc__)
