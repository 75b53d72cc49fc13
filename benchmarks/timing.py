"""What one `TimingContext` costs on the way of a page, in microseconds; the limit is 5."""

import statistics
from time import perf_counter

from crawlscope.timing import TimingContext, scope

ROUNDS = 15
CONTEXTS = 20_000
LIMIT_MICROSECONDS = 5.0


def cost_microseconds() -> float:
    """The median over rounds of a context's cost, the loop around it taken off."""
    return statistics.median(_round() for _ in range(ROUNDS))


def _round() -> float:
    collected: list[TimingContext] = []
    with scope(crawl_id="c", job_id="j", document_url="https://example.com/", collect=collected.append):
        began = perf_counter()
        for _ in range(CONTEXTS):
            pass
        empty = perf_counter() - began
        began = perf_counter()
        for _ in range(CONTEXTS):
            with TimingContext("chunking", "chunk_text"):
                pass
        measured = perf_counter() - began
    return (measured - empty) / CONTEXTS * 1e6


def main() -> None:
    cost = cost_microseconds()
    print(f"one TimingContext: {cost:.2f} µs (limit {LIMIT_MICROSECONDS:g} µs)")


if __name__ == "__main__":
    main()
