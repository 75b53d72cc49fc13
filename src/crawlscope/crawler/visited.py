"""A page that was fetched and read, with the facts for a crawl's decisions."""

import re
from array import array
from dataclasses import dataclass, replace
from hashlib import blake2b
from zlib import crc32

from crawlscope.crawler.fetch import FetchedPage
from crawlscope.crawler.links import like, names_a_page, normalise, site_of
from crawlscope.crawler.reading.markdown import PageText
from crawlscope.crawler.reading.page import read_page

_LINK_TARGET = re.compile(r"\]\([^()\s]*\)")
_WORD = re.compile(r"\w+")
_SKETCHED = 64
_MIN_ALIKE = 0.7
"""The minimum share of common words for a page and its canonical address to be the same page."""


@dataclass(frozen=True)
class Fingerprint:
    """A fingerprint of a page's words, without the targets of its links."""

    digest: bytes
    sketch: bytes
    """The smallest hashes of its words: a sample that is drawn alike from every text."""

    @classmethod
    def of(cls, text: PageText) -> "Fingerprint":
        said = f"{text.title or ''}\n{_LINK_TARGET.sub(']', text.markdown)}".encode("utf-8", "replace")
        words = {word.lower() for word in _WORD.findall(said.decode())}
        hashes = sorted({crc32(word.encode()) for word in words})
        return cls(blake2b(said, digest_size=16).digest(), array("I", hashes[:_SKETCHED]).tobytes())

    def is_like(self, other: "Fingerprint") -> bool:
        if self.digest == other.digest:
            return True
        mine, others = set(memoryview(self.sketch).cast("I")), set(memoryview(other.sketch).cast("I"))
        sample = set(sorted(mine | others)[:_SKETCHED])
        return bool(sample) and len(sample & mine & others) >= _MIN_ALIKE * len(sample)


@dataclass(frozen=True)
class VisitedPage:
    """A page that was fetched: `page.url` is the address of its text. Its body is not kept."""

    source_url: str
    page: FetchedPage
    text: PageText
    fingerprint: Fingerprint
    found_on: str | None = None
    canonical: str | None = None
    """Another page of the same site that it names as the one to keep."""

    @classmethod
    def read(cls, source_url: str, page: FetchedPage, found_on: str | None) -> "VisitedPage":
        """Blocks: call it in a thread."""
        text = read_page(page)
        named = normalise(text.canonical or "")
        canonical = named and like(named, page.url)
        if canonical and (canonical == page.url or site_of(canonical) != site_of(page.url)):
            canonical = None
        if canonical and not names_a_page(canonical):
            canonical = None
        return cls(source_url, replace(page, body=b""), text, Fingerprint.of(text), found_on, canonical)

    @property
    def shows_something(self) -> bool:
        return 200 <= self.page.status_code < 300 and bool(self.text.markdown.strip())

    @property
    def links(self) -> list[str]:
        """The targets of the page's refresh and links."""
        text = self.text
        return [text.refresh, *text.links] if text.refresh and not text.nofollow else text.links

    @property
    def other_site(self) -> str | None:
        """Another site to which the page forwards, if it has no link within its own."""
        target, site = normalise(self.text.refresh or ""), site_of(self.page.url)
        if target is None or site_of(target) == site:
            return None
        links = (normalise(link) for link in self.text.links)
        return None if any(link and site_of(link) == site for link in links) else target
