"""Crawls a site of HTML files with the built-in crawler and looks single sentences up in it.

    python -m benchmarks.sentences [FOLDER] [--pages N] [--sentences N] [--seed N]

FOLDER is the Python documentation of Debian's package python3-doc unless another one is given. Every page
must be searchable, and a sentence that stands on one page only must bring that page first in keyword search
for at least 95 of 100. Sentences are read from the HTML files themselves, not through this project's own
conversion.
"""

import argparse
import asyncio
import random
import re
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urljoin

from lxml import html

from benchmarks.service import running_service, settled
from crawlscope.api.client import ServiceClient
from crawlscope.cli import demo_site
from crawlscope.core.vocabulary import PageState
from crawlscope.insights.schemas import PageRow
from crawlscope.search.schemas import SearchFilters

DOCUMENTATION = Path("/usr/share/doc/python3/html")
LIMIT_SHARE = 0.95
SENTENCE = re.compile(r"[A-Z][^.!?]{50,200}[.!?](?=\s|$)")


def unique_sentences(folder: Path, base_url: str, urls: set[str]) -> list[tuple[str, str]]:
    """Pairs of a sentence and the URL of the only page it stands on."""
    places: dict[str, set[str]] = defaultdict(set)
    for path in sorted(folder.rglob("*.html")):
        url = urljoin(base_url, path.relative_to(folder).as_posix())
        for paragraph in html.parse(str(path)).getroot().iterfind(".//p"):
            for sentence in SENTENCE.findall(" ".join(paragraph.text_content().split())):
                places[sentence].add(url)
    return [
        (sentence, next(iter(found)))
        for sentence, found in places.items()
        if len(found) == 1 and found <= urls
    ]


async def found_first(service: ServiceClient, sentence: str, url: str) -> bool:
    results = (await service.search(sentence, mode="keyword", limit=1)).results
    return bool(results) and results[0].url == url


async def unsearchable(service: ServiceClient, pages: list[PageRow]) -> list[str]:
    """Indexed pages that a search within their own URL does not bring."""
    missing = []
    for page in pages:
        filters = SearchFilters(url_prefix=page.final_url)
        found = await service.search("documentation", mode="semantic", filters=filters)
        if page.final_url not in [result.url for result in found.results]:
            missing.append(page.final_url)
    return missing


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", type=Path, default=DOCUMENTATION)
    arguments.add_argument("--pages", type=int, default=530)
    arguments.add_argument("--sentences", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    folder = options.folder.resolve()
    with demo_site.serve(folder) as url:
        asyncio.run(measure(folder, url, options.pages, options.sentences, options.seed))


async def measure(folder: Path, url: str, limit: int, sentences: int, seed: int) -> None:
    async with running_service() as service:
        began = time.perf_counter()
        crawl_id = await service.start_crawl(url, limit, "builtin")
        crawled = await settled(service, crawl_id, completed=True)
        seconds = time.perf_counter() - began
        found = (await service.pages(crawl_id, limit=1_000)).pages
        pages = [page for page in found if page.state is PageState.INDEXED]
        print(f"{crawled.status}: {crawled.total_pages} pages, {crawled.pages_failed} failed")
        print(f"{seconds:.0f} s until searchable, {crawled.total_pages / seconds:.2f} pages/s")
        for page in found:
            if page.state is PageState.FAILED:
                print(f"  failed: {page.url}: {page.error}")
        missing = await unsearchable(service, pages)
        print(f"pages that search does not bring: {len(missing)} of {len(pages)} {missing[:5]}")
        candidates = unique_sentences(folder, url, {page.final_url for page in pages})
        sample = random.Random(seed).sample(candidates, sentences)
        lost = [pair for pair in sample if not await found_first(service, *pair)]
    share = 1 - len(lost) / len(sample)
    print(f"sentences that bring their page first: {share:.1%} of {len(sample)} (limit {LIMIT_SHARE:.0%})")
    for sentence, place in lost:
        print(f"  not first: {place}: {sentence}")


if __name__ == "__main__":
    main()
