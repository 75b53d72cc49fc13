"""Crawls a site of HTML files with the built-in crawler and looks single sentences up in it.

    python -m benchmarks.sentences [FOLDER] [--pages N] [--sentences N] [--seed N]

FOLDER is the Python documentation of Debian's package python3-doc unless another one is given. Every page
must be searchable, and a sentence that stands on one page only must bring that page first in keyword search
for at least 95 of 100. Sentences are read from the HTML files themselves, not through this project's own
conversion.
"""

import argparse
import random
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from lxml import html
from tests.journeys.stack import Stack, eventually, running_stack

from crawlscope.cli import demo_site

DOCUMENTATION = Path("/usr/share/doc/python3/html")
LIMIT_SHARE = 0.95
SENTENCE = re.compile(r"[A-Z][^.!?]{50,200}[.!?](?=\s|$)")


def crawl(stack: Stack, url: str, pages: int) -> dict[str, Any]:
    """From the order until the last page is searchable."""
    started = stack.start_crawl({"url": url, "limit": pages, "engine": "builtin"})
    started.raise_for_status()
    crawl_id = started.json()["crawl_id"]
    return eventually(
        lambda: stack.crawl(crawl_id),
        lambda it: it["status"] != "in_progress" and it["pages_pending"] == 0,
        seconds=3_600,
    )


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


def found_first(stack: Stack, sentence: str, url: str) -> bool:
    results = stack.search(sentence, mode="keyword", limit=1)["results"]
    return bool(results) and results[0]["url"] == url


def unsearchable(stack: Stack, pages: list[dict[str, Any]]) -> list[str]:
    """Indexed pages that a search within their own URL does not bring."""
    missing = []
    for page in pages:
        filters = {"url_prefix": page["final_url"]}
        results = stack.search("documentation", mode="semantic", filters=filters)["results"]
        if page["final_url"] not in [result["url"] for result in results]:
            missing.append(page["final_url"])
    return missing


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", type=Path, default=DOCUMENTATION)
    arguments.add_argument("--pages", type=int, default=530)
    arguments.add_argument("--sentences", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    folder = options.folder.resolve()
    with (
        tempfile.TemporaryDirectory() as data,
        demo_site.serve(folder) as url,
        running_stack(Path(data) / "data") as stack,
    ):
        began = time.perf_counter()
        crawled = crawl(stack, url, options.pages)
        seconds = time.perf_counter() - began
        pages = [page for page in stack.pages(crawled["crawl_id"]) if page["state"] == "indexed"]
        print(f"{crawled['status']}: {crawled['total_pages']} pages, {crawled['pages_failed']} failed")
        print(f"{seconds:.0f} s until searchable, {crawled['total_pages'] / seconds:.2f} pages/s")
        for page in stack.pages(crawled["crawl_id"], state="failed"):
            print(f"  failed: {page['url']}: {page['error']}")
        missing = unsearchable(stack, pages)
        print(f"pages that search does not bring: {len(missing)} of {len(pages)} {missing[:5]}")
        candidates = unique_sentences(folder, url, {page["final_url"] for page in pages})
        sample = random.Random(options.seed).sample(candidates, options.sentences)
        lost = [(sentence, place) for sentence, place in sample if not found_first(stack, sentence, place)]
        share = 1 - len(lost) / len(sample)
        print(
            f"sentences that bring their page first: {share:.1%} of {len(sample)} (limit {LIMIT_SHARE:.0%})"
        )
        for sentence, place in lost:
            print(f"  not first: {place}: {sentence}")


if __name__ == "__main__":
    main()
