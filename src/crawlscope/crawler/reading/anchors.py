"""Links of a page as Markdown has them: absolute, and without marks that only lead back to themselves."""

import re
from functools import cache, partial

from turbohtml import Element

from crawlscope.crawler.reading.head import join
from crawlscope.crawler.reading.tree import clean, words

PERMALINKS = frozenset(
    {"", "#", "¶", "§", "🔗", "\uf0c1", "⚓", "⚓\ufe0e", "[link]", "permalink", "\u200b", "↩", "↩\ufe0e"}
)
PERMALINK_NAMES = re.compile(
    r"(?:^|\s)(?:headerlink|hash-link|anchor-link|heading-?anchor|header-anchor|anchorjs-link)(?:\s|$)"
)
_SKIPS = re.compile(r"(?:skip|jump) (?:to|past|over) .{1,40}", re.IGNORECASE)


def plain_links(region: Element, url: str, base: str) -> None:
    """Links to elsewhere are made absolute; permalink marks go; links within the page become their text."""
    page = url.partition("#")[0]
    target_of = cache(partial(join, base))
    for anchor in list(region.iter_elements("a")):
        href = anchor.attr("href") or "#"
        target = None if href.startswith("#") else target_of(href)
        text = words(anchor).lower()
        inward = target is None or target.partition("#")[0] == page
        marked = len(text) < 3 and PERMALINK_NAMES.search(anchor.attr("class") or "") is not None
        marks = (text in PERMALINKS or marked) and anchor.find("img") is None
        if marks or (inward and _SKIPS.fullmatch(text)):
            anchor.decompose()
        elif inward or target is None:
            anchor.unwrap()
        else:
            anchor.attrs["href"] = clean(target)
