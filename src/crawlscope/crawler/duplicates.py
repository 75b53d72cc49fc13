"""Which pages of a crawl are one document under several addresses.

Nothing is taken for the same on the word of an address or of `rel=canonical` alone: the texts are compared.
"""

from collections import OrderedDict, defaultdict
from dataclasses import replace

from crawlscope.crawler.links import variant_key
from crawlscope.crawler.reading.markdown import PageText
from crawlscope.crawler.visited import Fingerprint, VisitedPage

_MAX_KEPT_CHARACTERS = 16 * 1024 * 1024


class Originals:
    """Takes the pages of a crawl as they are read, and gives each back, once, with the URL and the text of
    the document that it is: its own, or those of the page that shows the same.

    A page is the same as the canonical one that it names where the two are alike; else as another one with
    exactly its text: the page that it was found on, or one whose address differs only in parts that often
    mean nothing. While the canonical page or the one with the shortest such address is still to be read, the
    page waits for it: the next crawl shall find it under the same address.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        """Requested URLs that were read, or could not be read."""
        self._shortest: dict[str, str] = {}
        """The shortest address of this crawl without a query, by addresses that often show one page."""
        self._landed: dict[str, str] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._documents: dict[str, str] = {}
        """The URL of the document that a page turned out to be, often its own."""
        self._firsts: dict[tuple[str, bytes], str] = {}
        self._stand_ins: dict[str, str] = {}
        """For a canonical page that nobody can read: the first page that named it."""
        self._waiting: defaultdict[str, list[VisitedPage]] = defaultdict(list)
        self._texts = _Texts()

    def expect(self, url: str) -> None:
        """This URL will be read, or missed."""
        if "?" not in url:
            shortest = self._shortest.setdefault(variant_key(url), url)
            if (len(url), url) < (len(shortest), shortest):
                self._shortest[variant_key(url)] = url

    def read(self, page: VisitedPage, canonical_comes: bool) -> list[VisitedPage]:
        """The pages to deliver now. `canonical_comes`: the canonical page is one of this crawl."""
        url = page.page.url
        self._seen.add(page.source_url)
        if url != page.source_url:
            self._landed[page.source_url] = url
        if not page.shows_something:
            return [page, *self._released(page.source_url)]
        self._fingerprints[page.source_url] = self._fingerprints[url] = page.fingerprint
        awaited = page.canonical if canonical_comes else self._shortest.get(variant_key(url))
        decided = []
        if awaited and awaited not in self._seen and awaited not in self._fingerprints:
            self._waiting[awaited].append(page)
        else:
            decided = [self._decided(page)]
        return [*decided, *self._released(page.source_url), *self._released(url)]

    def missed(self, url: str) -> list[VisitedPage]:
        """The pages that waited for this one, which cannot be read."""
        self._seen.add(url)
        return self._released(url)

    def rest(self) -> list[VisitedPage]:
        """The pages that still wait, when nothing is read any more."""
        return [page for url in list(self._waiting) for page in self._released(url)]

    def _released(self, canonical: str) -> list[VisitedPage]:
        return [self._decided(page) for page in self._waiting.pop(canonical, [])]

    def _decided(self, page: VisitedPage) -> VisitedPage:
        url = page.page.url
        original = self._original(page) or url
        self._documents[url] = original
        if original == url:
            self._firsts.setdefault((variant_key(url), page.fingerprint.digest), url)
            self._texts.keep(url, page.text)
            return page
        text = self._texts.of(original) or page.text
        return replace(page, page=replace(page.page, url=original), text=text)

    def _original(self, page: VisitedPage) -> str | None:
        fingerprint = page.fingerprint
        if canonical := page.canonical:
            if canonical not in self._fingerprints:
                canonical = self._stand_ins.setdefault(canonical, page.page.url)
            if self._fingerprints[canonical].is_like(fingerprint):
                return self._document_of(canonical)
        if page.found_on in self._documents:
            other = self._fingerprints.get(page.found_on)
            if other is not None and other.digest == fingerprint.digest:
                return self._document_of(page.found_on)
        first = self._firsts.get((variant_key(page.page.url), fingerprint.digest))
        return first and self._document_of(first)

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
        while self._characters > _MAX_KEPT_CHARACTERS:
            self._drop(next(iter(self._texts)))

    def _drop(self, url: str) -> None:
        dropped = self._texts.pop(url, None)
        self._characters -= len(dropped.markdown) if dropped else 0

    def of(self, url: str) -> PageText | None:
        if url in self._texts:
            self._texts.move_to_end(url)
        return self._texts.get(url)
