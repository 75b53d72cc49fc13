"""The blocks of a page, each weighed: how much text it holds, and how much of that is links.

Text is weighed in bytes of UTF-8, by which a character of Chinese counts for three.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from turbohtml import Element, Node, Text

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
INLINE = (
    "span", "a", "i", "b", "em", "strong", "code", "small", "sup", "sub", "img", "font", "mark", "abbr",
)  # fmt: skip
RUNNING_TEXT = 80
"""From this weight on, text beside links reads like prose."""
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "table", "pre", "dl", "article", "section")
_STEPS = frozenset({"prev", "previous", "next", "up", "start", "contents", "index"})
_STEP_KEYS = frozenset({"p", "n", "u", "h"})
_MAX_LINK = 150
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def names_of(element: Element) -> list[str]:
    """Classes and id, in lower case and with hyphens."""
    written = f"{element.attr('class') or ''} {element.attr('id') or ''}"
    return [_CAMEL.sub("-", name).lower() for name in written.split()[:40]]


def weigh(text: str) -> int:
    return len("".join(text.split()).encode("utf-8", "replace"))


@dataclass(slots=True)
class Weight:
    """The content of a block, including all blocks within it."""

    text: int = 0
    linked: int = 0
    links: int = 0
    elsewhere: int = 0
    """Links that lead to another page."""
    steps: int = 0
    """Links to the page before, after or above this one."""
    titles: int = 0
    """Text of headings, which neither navigation nor text goes without."""
    blocks: int = 0
    headings: int = 0
    h1s: int = 0
    navigation: int = 0

    @property
    def running(self) -> int:
        return self.text - self.linked

    @property
    def is_mostly_links(self) -> bool:
        return self.links > 0 and self.linked * 2 >= self.text - self.titles

    @property
    def is_prose(self) -> bool:
        return self.running >= RUNNING_TEXT and not self.is_mostly_links

    @property
    def is_list_of_links(self) -> bool:
        return self.links >= 5 and self.linked * 10 >= self.text * 8 and self.headings == 0

    @property
    def is_sidebar(self) -> bool:
        """Several lists of links, each below a heading."""
        lists = self.headings >= 2 and self.h1s == 0 and self.links >= 3 * self.headings
        return lists and self.linked * 10 >= (self.text - self.titles) * 9

    def count_block(self, element: Element, tag: str) -> None:
        if tag in _BLOCKS:
            self.blocks = 1
            self.headings = int(tag in HEADINGS)
            self.h1s = int(tag == "h1")
        elif tag == "nav" or (element.attr("role") or "").lower() in ("navigation", "search"):
            self.navigation = 1

    def count_link(self, link: Element, href: str) -> None:
        self.links += 1
        self.elsewhere += not href.lstrip().startswith("#")
        # By the words that Texinfo, DocBook and many others write.
        self.steps += (link.attr("accesskey") or "").lower() in _STEP_KEYS or not _STEPS.isdisjoint(
            (link.attr("rel") or "").lower().split()
        )

    def add(self, other: "Weight", sign: int = 1) -> None:
        self.text += sign * other.text
        self.linked += sign * other.linked
        self.links += sign * other.links
        self.elsewhere += sign * other.elsewhere
        self.steps += sign * other.steps
        self.titles += sign * other.titles
        self.blocks += sign * other.blocks
        self.headings += sign * other.headings
        self.h1s += sign * other.h1s
        self.navigation += sign * other.navigation


_GONE = Weight()


class Blocks:
    """The blocks of a page by their place in document order, each weighed; the first is the page."""

    def __init__(self, root: Element) -> None:
        self.elements = [root]
        self.weights = [Weight()]
        self._outer = [0]
        self._dropped: list[tuple[int, Weight]] = []
        self._weigh(root)
        self.ends = list(range(1, len(self.elements) + 1))
        """The place after all that is within it."""
        for at in range(len(self.elements) - 1, 0, -1):
            outer = self._outer[at]
            self.weights[outer].add(self.weights[at])
            self.ends[outer] = max(self.ends[outer], self.ends[at])

    def _weigh(self, root: Element) -> None:
        """Each block without those within it."""
        open_elements: list[tuple[Node, int, bool]] = [(root, 0, False)]
        for node in root.descendants:
            parent = node.parent
            while len(open_elements) > 1 and open_elements[-1][0] != parent:
                open_elements.pop()
            _, at, linked = open_elements[-1]
            weight = self.weights[at]
            if isinstance(node, Text):
                text = weigh(node.data)
                weight.text += text
                if linked:
                    weight.linked += text
                elif weight.headings:
                    weight.titles += text
            elif isinstance(node, Element):
                tag = node.tag
                if tag == "a" and (href := node.attr("href")) is not None:
                    # Some pages set whole paragraphs as links, or forget where one ends.
                    linked = weigh(node.text) <= _MAX_LINK
                    weight.count_link(node, href)
                elif tag not in INLINE:
                    self.elements.append(node)
                    self.weights.append(Weight())
                    self._outer.append(at)
                    self.weights[-1].count_block(node, tag)
                    at = len(self.elements) - 1
                open_elements.append((node, at, linked))

    def within(self, at: int) -> Iterator[int]:
        """The places of the blocks within; skips what was dropped on the way."""
        place = at + 1
        while place < self.ends[at]:
            yield place
            place = self.ends[place] if self.weights[place] is _GONE else place + 1

    def directly_within(self, at: int) -> list[int]:
        places = []
        place = at + 1
        while place < self.ends[at]:
            if self.weights[place] is not _GONE:
                places.append(place)
            place = self.ends[place]
        return places

    def drop(self, at: int, *, but: Element | None = None) -> None:
        """Takes the block out of the page; what is kept of it takes its place."""
        self._dropped.append((self._outer[at], self.weights[at]))
        self.weights[0].add(self.weights[at], -1)
        self.weights[at] = _GONE
        if but is None:
            self.elements[at].decompose()
        else:
            self.elements[at].replace_with(but.extract())

    def settle(self) -> None:
        """Subtracts dropped text from blocks around it: at once for the page, for all other blocks here."""
        lost: list[Weight | None] = [None] * len(self.elements)
        for outer, weight in self._dropped:
            _sum(lost, outer).add(weight)
        self._dropped.clear()
        for at in range(len(self.elements) - 1, 0, -1):
            weight_lost = lost[at]
            if weight_lost is not None:
                _sum(lost, self._outer[at]).add(weight_lost)
                if self.weights[at] is not _GONE:
                    self.weights[at].add(weight_lost, -1)


def _sum(sums: list[Weight | None], at: int) -> Weight:
    found = sums[at]
    if found is None:
        found = sums[at] = Weight()
    return found
