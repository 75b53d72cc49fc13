"""Real pages of which benchmarks make as many as they need, and the deliveries that bring them."""

import hashlib
import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import platformdirs

from crawlscope.cli import demo_site
from crawlscope.crawler.reading.markdown import to_markdown

MIN_PAGE_CHARACTERS = 12_000
MAX_PAGE_CHARACTERS = 100_000
"""Between these the site's pages are about as large as those of recorded crawls: their median is 23,000."""


def pages_of_site(count: int | None = None, smallest: int = MIN_PAGE_CHARACTERS) -> list[str]:
    """Markdown of real pages: the standard library's documentation."""
    return [text for text in _texts() if smallest <= len(text) <= MAX_PAGE_CHARACTERS][:count]


@cache
def _texts() -> list[str]:
    """Kept in a file, because building them takes long."""
    kept = Path(platformdirs.user_cache_dir("crawlscope-benchmarks"), f"pages-{_version()}.json")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        staging = kept.with_suffix(".new")
        staging.write_text(json.dumps(_read_site()))
        staging.replace(kept)
    texts: list[str] = json.loads(kept.read_text())
    return texts


def _version() -> str:
    """The version of the interpreter, whose documentation the pages are, and of the reader that makes them
    Markdown."""
    reader = hashlib.sha256(Path(sys.modules[to_markdown.__module__].__file__ or "").read_bytes())
    return f"{sys.version.split()[0]}-{reader.hexdigest()[:12]}"


def _read_site() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        demo_site.build(Path(folder))
        sources = sorted(Path(folder).glob("*.html"))
        return [to_markdown(source.read_bytes(), source.as_uri(), "utf-8").markdown for source in sources]


class Site:
    """A website of any number of different pages: real ones, each with a heading of its own."""

    def __init__(self, host: str, smallest: int = MIN_PAGE_CHARACTERS, largest: int = MAX_PAGE_CHARACTERS):
        self.host = host
        self._texts = [text for text in pages_of_site(smallest=smallest) if len(text) <= largest]

    def url(self, number: int) -> str:
        return f"https://{self.host}/pages/{number}"

    def title(self, number: int) -> str:
        return f"Page {number} of {self.host}"

    def markdown(self, number: int) -> str:
        return f"# {self.title(number)}\n\n{self._texts[number % len(self._texts)]}"

    def page_event(self, crawl_id: str, number: int) -> bytes:
        url = self.url(number)
        metadata = {"title": self.title(number), "sourceURL": url, "url": url, "statusCode": 200}
        page = {"markdown": self.markdown(number), "metadata": metadata}
        return _event("crawl.page", crawl_id, url, [page])

    @staticmethod
    def end_event(crawl_id: str) -> bytes:
        return _event("crawl.completed", crawl_id, "", [])


def _event(kind: str, crawl_id: str, url: str, data: list[dict[str, Any]]) -> bytes:
    event = {
        "success": True,
        "type": kind,
        "id": crawl_id,
        "webhookId": str(uuid5(NAMESPACE_URL, f"{crawl_id} {kind} {url}")),
        "data": data,
        "metadata": {},
    }
    return json.dumps(event).encode()
