"""Endless sites: links that lead only to texts that were read before are kept back."""

from collections import Counter, defaultdict
from collections.abc import Sequence

_MAX_REPEATED = 5


class Traps:
    """Decides which links of a page are worth following, by the results of links on pages with the same text.

    Once five pages in a row that were found on pages of one text brought no new text, the links of further
    pages with that text are held back, until one of the pages found so brings something new.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self._known: set[bytes] = set()
        self._repeated: Counter[bytes] = Counter()
        """By the text of the page where they were found: pages since the last new text."""
        self._kept_back: defaultdict[bytes, dict[str, None]] = defaultdict(dict)

    def links_of(self, url: str, digest: bytes, found_on: str | None, links: Sequence[str]) -> list[str]:
        """The links to follow, some of which were kept back before. `digest` is of the page's text."""
        new = digest not in self._known
        self._known.add(digest)
        self._digests[url] = digest
        released: list[str] = []
        if found_on in self._digests:
            parent = self._digests[found_on]
            self._repeated[parent] = 0 if new else self._repeated[parent] + 1
            released = list(self._kept_back.pop(parent, ())) if new else []
        if new or self._repeated[digest] < _MAX_REPEATED:
            return [*released, *links]
        self._kept_back[digest].update(dict.fromkeys(links))
        return released

    @property
    def kept_back(self) -> set[str]:
        return {link for links in self._kept_back.values() for link in links}
