"""Which pages of a crawl are one document under several addresses.

Nothing is taken for the same on the word of an address or of `rel=canonical` alone: the texts are compared.
"""

import re
from array import array
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, replace
from hashlib import blake2b
from zlib import crc32

from crawlscope.crawler.fetch import FetchedPage
from crawlscope.crawler.links import variant_key
from crawlscope.crawler.reading.markdown import PageText

_LINK_TARGET = re.compile(r"\]\([^()\s]*\)")
_WORD = re.compile(r"\w+")
_SKETCHED = 64
_ALIKE = 0.7
"""Share of words in common from which a page is what it names as its canonical address."""
_KEPT_CHARACTERS = 16 * 1024 * 1024


@dataclass(frozen=True)
class Fingerprint:
    """Of what a page says, whatever its links lead to."""

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
        return bool(sample) and len(sample & mine & others) >= _ALIKE * len(sample)


@dataclass(frozen=True)
class ReadPage:
    """A page that was fetched and read; what it shows is found under `page.url`."""

    source_url: str
    page: FetchedPage
    text: PageText
    fingerprint: Fingerprint
    found_on: str | None = None
    canonical: str | None = None
    """Another page of the same site that it names as the one to keep."""

    @property
    def shows_something(self) -> bool:
        return 200 <= self.page.status_code < 300 and bool(self.text.markdown.strip())


class Originals:
    """Takes the pages of a crawl as they are read, and gives each back, once, with the URL and the text of
    the document that it is: its own, or those of the page that shows the same.

    A page is the same as the canonical one that it names where the two are alike; else as another one with
    exactly its text that it was found on, or whose address differs only in what often means nothing. While
    the canonical page or the one with the shortest such address is still to be read, the page waits for it:
    the next crawl shall find it under the same address.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        """The URLs asked for that were read, or could not be."""
        self._shortest: dict[str, str] = {}
        """For addresses that often show one page the shortest of this crawl, of those without a query."""
        self._landed: dict[str, str] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._documents: dict[str, str] = {}
        """The URL of the document that a page turned out to be, often its own."""
        self._firsts: dict[tuple[str, bytes], str] = {}
        self._stand_ins: dict[str, str] = {}
        """For a canonical page that nobody can read: the first page that named it."""
        self._waiting: defaultdict[str, list[ReadPage]] = defaultdict(list)
        self._texts = _Texts()

    def expect(self, url: str) -> None:
        """This URL will be read, or missed."""
        if "?" not in url:
            shortest = self._shortest.setdefault(variant_key(url), url)
            if (len(url), url) < (len(shortest), shortest):
                self._shortest[variant_key(url)] = url

    def read(self, page: ReadPage, canonical_comes: bool) -> list[ReadPage]:
        """The pages to deliver now. `canonical_comes`: the canonical page is one of this crawl."""
        url = page.page.url
        self._seen.add(page.source_url)
        if url != page.source_url:
            self._landed[page.source_url] = url
        if not page.shows_something:
            return [page, *self._released(page.source_url)]
        self._fingerprints[page.source_url] = self._fingerprints[url] = page.fingerprint
        settled = []
        awaited = page.canonical if canonical_comes else self._shortest.get(variant_key(url))
        if awaited and not self._is_settled(awaited):
            self._waiting[awaited].append(page)
        else:
            settled = [self._decided(page)]
        return [*settled, *self._released(page.source_url), *self._released(url)]

    def missed(self, url: str) -> list[ReadPage]:
        """The pages that waited for this one, which cannot be read."""
        self._seen.add(url)
        return self._released(url)

    def rest(self) -> list[ReadPage]:
        """The pages that still wait, when nothing is read any more."""
        return [page for url in list(self._waiting) for page in self._released(url)]

    def _is_settled(self, url: str) -> bool:
        return url in self._seen or url in self._fingerprints

    def _released(self, canonical: str) -> list[ReadPage]:
        return [self._decided(page) for page in self._waiting.pop(canonical, [])]

    def _decided(self, page: ReadPage) -> ReadPage:
        url = page.page.url
        original = self._original(page) or url
        self._documents[url] = original
        if original == url:
            self._firsts.setdefault((variant_key(url), page.fingerprint.digest), url)
            self._texts.keep(url, page.text)
            return page
        text = self._texts.of(original) or page.text
        return replace(page, page=replace(page.page, url=original), text=text)

    def _original(self, page: ReadPage) -> str | None:
        if page.canonical and (named := self._canonical_of(page, page.canonical)):
            return named
        if page.found_on in self._documents and self._says_the_same(page, page.found_on):
            return self._document_of(page.found_on)
        first = self._firsts.get((variant_key(page.page.url), page.fingerprint.digest))
        return first and self._document_of(first)

    def _canonical_of(self, page: ReadPage, canonical: str) -> str | None:
        if canonical not in self._fingerprints:
            canonical = self._stand_ins.setdefault(canonical, page.page.url)
        is_like = self._fingerprints[canonical].is_like(page.fingerprint)
        return self._document_of(canonical) if is_like else None

    def _says_the_same(self, page: ReadPage, url: str) -> bool:
        other = self._fingerprints.get(url)
        return other is not None and other.digest == page.fingerprint.digest

    def _document_of(self, url: str) -> str:
        url = self._landed.get(url, url)
        while (document := self._documents.get(url, url)) != url:
            url = document
        return url


class _Texts:
    """The texts used last, up to some megabytes."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, PageText] = OrderedDict()
        self._characters = 0

    def keep(self, url: str, text: PageText) -> None:
        self._drop(url)
        self._texts[url] = text
        self._characters += len(text.markdown)
        while self._characters > _KEPT_CHARACTERS:
            self._drop(next(iter(self._texts)))

    def _drop(self, url: str) -> None:
        dropped = self._texts.pop(url, None)
        self._characters -= len(dropped.markdown) if dropped else 0

    def of(self, url: str) -> PageText | None:
        if url in self._texts:
            self._texts.move_to_end(url)
        return self._texts.get(url)
