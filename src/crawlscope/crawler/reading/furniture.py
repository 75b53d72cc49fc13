"""Takes from a page what belongs to the site around it: navigation, banners, controls, notices.

A tag, role or class alone never costs text. What looks like furniture goes where it reads like furniture too:
links rather than running text. Text is weighed in bytes of UTF-8, by which a character of Chinese counts for
three.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from turbohtml import DocumentFragment, Element, Node, Text

from crawlscope.crawler.reading.tree import is_within, words

_NEVER_TEXT = [
    "script", "style", "template", "svg", "iframe", "embed", "audio", "video", "source", "track", "map",
    "head", "title", "link", "meta", "base", "datalist", "progress", "meter", "param", "noframes", "frame",
]  # fmt: skip
_CONTROLS = ["input", "select", "textarea", "button"]
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_NAMING = (*_HEADINGS, "summary", "dt", "legend", "caption", "th", "figcaption")
_INLINE = (
    "span",
    "a",
    "i",
    "b",
    "em",
    "strong",
    "code",
    "small",
    "sup",
    "sub",
    "img",
    "font",
    "mark",
    "abbr",
)
_SECTIONS = ("main", "article", "section", "blockquote", "figure", "li", "td", "dd")
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "table", "pre", "dl", "article", "section")

_SAME_ROLES = {
    **dict.fromkeys(
        ["search", "menu", "menubar", "toolbar", "tree", "doc-toc", "doc-pagelist"], "navigation"
    ),
    "alertdialog": "dialog",
}
_NAVIGATION = re.compile(
    r"(?:^|[-_])(?:nav|navs|navbar|navigation|nav[a-z]*|menu|menus|menubar|side[-_]?bar|side[-_]?nav|side[-_]?menu"
    r"|breadcrumbs?|crumbs?|pagination|pager|prev[-_]?next|next[-_]?prev|toolbar|top[-_]?bar|masthead|related"
    r"|skip[-_]?links?|skip[-_]?nav|skip[-_]?to[-_]?content|sphinxsidebar\w*|[a-z]*sidebar|[a-z]*nav(?:bar)?|jump[a-z]*"
    r"|share|social|search[a-z]*|path|banner)(?:$|[-_\d])"
)
_ALWAYS_NAVIGATION = re.compile(
    r"(?:^|[-_])(?:nav[-_]?header|nav[-_]?footer|nav[-_]?path|breadcrumbs?|breadcrumb[-_]nav|pagination|prev[-_]?next"
    r"|skip[-_]?links?|skip[-_]?nav|skip[-_]?to[-_]?content|sr[-_]only[-_]focusable|search[-_]?(?:box|form|bar)"
    r"|edit[-_]this[-_]page|edit[-_]on[-_]github|version[-_]?(?:switcher|picker|selector)|language[-_]?(?:switcher|picker))"
    r"(?:$|[-_\d])"
)
_CONTENTS = re.compile(
    r"^contents$|(?:^|[-_])(?:toc|tocs|toctree\w*|mini[-_]?toc|local[-_]?toc|page[-_]?toc|on[-_]?this[-_]?page"
    r"|table[-_]?of[-_]?contents|outline|scrollspy)(?:$|[-_\d])"
)
_MAY_ASK_CONSENT = ", ".join(
    f"[{attribute}*={name} i]"
    for attribute in ("class", "id", "aria-label")
    for name in ("cookie", "consent", "gdpr", "cc-window", "onetrust")
)
_CONSENT = re.compile(r"cookie|consent|gdpr|^cc-window$|^onetrust")
_CONSENT_BANNER = re.compile(
    r"(?:cookie|consent|gdpr)s?[-_ ]?(?:banner|bar|notice|notification|consent|popup|modal"
    r"|dialog|overlay|law)"
    r"|cookiebot|^cc-window$|^onetrust"
)
_PANELS = re.compile(
    r"(?:^|[-_])(?:tab|tabs|panel|pane|accordion|collaps\w*|content|body|text|answer|solution|hint"
    r"|example|details|spoiler|more|item|slide|step|lang|os|platform)(?:$|[-_])"
)
_ACCORDION = re.compile(r"accordion|collaps|faq|question|disclosure|expand|toggle")
_OVERLAY = re.compile(r"modal|dialog|overlay|popup|popover|toast|drawer|off-?canvas|menu|tooltip")
_MOST_LINKS_OF_A_BAR = 40
_MOST_BLOCKS_OF_A_BAR = 100
_SEPARATORS = re.compile(r"[\s|·•»›>/\[\]]+")
_STEPS = frozenset({"prev", "previous", "next", "up", "start", "contents", "index"})
_MOST_STEPS = 12
_STEP_KEYS = frozenset({"p", "n", "u", "h"})
_FOOTER = re.compile(r"^(?:(?:site|page|main|global|doc)[-_]?)?footer$")
_LEGAL = re.compile(r"©|\(c\)|copyright|licen[cs]e|all rights reserved|powered by", re.IGNORECASE)
_NOTES = ".footnotes, .footnote, [role=doc-endnotes], [role=doc-footnote]"
_LINE_NUMBERS = re.compile(
    r"^(?:linenos?|line-?numbers?(?:-rows)?|lineno|gutter|lnt?|rouge-gutter|blob-num)$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_RUNNING_TEXT = 80
_LONG_TEXT = 300
_LONGEST_LINK = 150
_MOST_OF_A_NOTICE = 2000


@dataclass(slots=True)
class Weight:
    """What a block holds, with all blocks within it."""

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
        return self.running >= _RUNNING_TEXT and not self.is_mostly_links

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
        open_elements: list[tuple[Node, int, bool]] = [(root, 0, False)]
        for node in root.descendants:
            parent = node.parent
            while len(open_elements) > 1 and open_elements[-1][0] != parent:
                open_elements.pop()
            _, at, linked = open_elements[-1]
            if isinstance(node, Text):
                weight = weigh(node.data)
                self.weights[at].text += weight
                if linked:
                    self.weights[at].linked += weight
                elif self.weights[at].headings:
                    self.weights[at].titles += weight
            elif isinstance(node, Element):
                tag = node.tag
                if tag == "a" and (href := node.attr("href")) is not None:
                    # Some pages set whole paragraphs as links, or forget where one ends.
                    linked = weigh(node.text) <= _LONGEST_LINK
                    self.weights[at].links += 1
                    self.weights[at].elsewhere += not href.lstrip().startswith("#")
                    self.weights[at].steps += _is_step(node)
                elif tag not in _INLINE:
                    at = self._add(node, tag, at)
                open_elements.append((node, at, linked))

    def _add(self, element: Element, tag: str, outer: int) -> int:
        weight = Weight()
        if tag in _BLOCKS:
            weight.blocks = 1
            weight.headings = int(tag in _HEADINGS)
            weight.h1s = int(tag == "h1")
        elif tag == "nav" or (element.attr("role") or "").lower() in ("navigation", "search"):
            weight.navigation = 1
        self.elements.append(element)
        self.weights.append(weight)
        self._outer.append(outer)
        return len(self.elements) - 1

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

    def drop(self, at: int) -> None:
        self._forget(at)
        self.elements[at].decompose()

    def leave_heading(self, at: int) -> None:
        heading = self.elements[at].find("h1")
        assert heading is not None
        self._forget(at)
        self.elements[at].replace_with(heading.extract())

    def _forget(self, at: int) -> None:
        self._dropped.append((self._outer[at], self.weights[at]))
        self.weights[0].add(self.weights[at], -1)
        self.weights[at] = _GONE

    def settle(self) -> None:
        """Takes what was dropped from what is around it: at once for the page, for all other blocks here."""
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


_GONE = Weight()


def _is_step(link: Element) -> bool:
    """By the words that Texinfo, DocBook and many others write."""
    return (link.attr("accesskey") or "").lower() in _STEP_KEYS or not _STEPS.isdisjoint(
        (link.attr("rel") or "").lower().split()
    )


def weigh(text: str) -> int:
    return len("".join(text.split()).encode("utf-8", "replace"))


def main_region(body: Element) -> Element:
    """Drops the furniture from the page and returns the part of it that is the page's own."""
    controlled = _controlled(body)
    _drop_consent(body)
    _drop_never_text(body)
    _drop_controls(body)
    _drop_marks(body)
    blocks = Blocks(body)
    for at in blocks.within(0):
        if _is_furniture(blocks, at, controlled):
            if blocks.weights[at].h1s == 1 and blocks.weights[0].h1s == 1:
                blocks.leave_heading(at)
            else:
                blocks.drop(at)
    blocks.settle()
    region = _named_region(blocks)
    _drop_contents(blocks, region)
    blocks.settle()
    _drop_lists_of_links_beside(blocks, region)
    return _with_what_is_outside(blocks, region)


def _controlled(body: Element) -> set[str]:
    """The ids of what a reader can open with a click."""
    ids: set[str] = set()
    for element in body.select("[aria-controls], [data-target], [data-bs-target], [href^='#']"):
        for name in ("aria-controls", "data-target", "data-bs-target", "href"):
            ids.update((element.attr(name) or "").replace("#", "").split())
    return ids


def _drop_consent(body: Element) -> None:
    """A chapter on cookies has no button to accept them."""
    for element in list(body.select(_MAY_ASK_CONSENT)):
        names = [*_names(element), (element.attr("aria-label") or "").lower()]
        answers = element.select_one("button, input, [role=button], a[class*=btn i], a[class*=button i]")
        named = any(map(_CONSENT_BANNER.search, names)) and element.select_one("h1, h2, h3") is None
        asks = named or (answers is not None and any(map(_CONSENT.search, names)))
        if is_within(element, "main", "article"):
            asks = named and answers is not None
        if asks and weigh(element.text) < _MOST_OF_A_NOTICE:
            element.decompose()


def _drop_never_text(body: Element) -> None:
    for element in list(body.iter_elements(_NEVER_TEXT)):
        if element.tag == "template" and ("shadowroot" in element.attrs or "shadowrootmode" in element.attrs):
            _unwrap_template(element)
        elif element.tag == "noframes":
            continue
        elif not (element.tag == "map" and element.text.strip()):
            element.decompose()
    for element in list(body.iter_elements(["object", "canvas"])):
        element.unwrap()


def _unwrap_template(template: Element) -> None:
    for part in list(template):
        inner = list(part) if isinstance(part, DocumentFragment) else [part]
        template.insert_before(*[node.extract() for node in inner])
    template.decompose()


def _drop_controls(body: Element) -> None:
    for element in list(body.iter_elements(_CONTROLS)):
        shown = next((node for node in islice(element.next_siblings, 2) if isinstance(node, Element)), None)
        if element.tag == "button" and shown is not None and shown.tag not in _INLINE:
            _show(shown)
        if element.tag == "button" and _names_something(element):
            element.unwrap()
        elif element.tag == "textarea" and "readonly" in element.attrs:
            element.tag = "pre"
        else:
            element.decompose()


def _show(element: Element) -> None:
    """What follows a button is a click away."""
    if "hidden" in element.attrs:
        del element.attrs["hidden"]


def _names_something(button: Element) -> bool:
    """Questions that open their answers are headings; "Copy" and "Menu" name nothing."""
    if is_within(button, *_NAMING):
        return True
    role = (button.attr("role") or "").lower()
    opens = "aria-expanded" in button.attrs or "aria-controls" in button.attrs
    named = any(_ACCORDION.search(name) for name in _names(button))
    return (
        role == "tab"
        or named
        or (opens and weigh(button.text) >= 12)
        or button.text.rstrip()[-1:] in ("?", "？")
    )


def _names(element: Element) -> list[str]:
    written = f"{element.attr('class') or ''} {element.attr('id') or ''}"
    return [_CAMEL.sub("-", name).lower() for name in written.split()[:40]]


def _drop_marks(body: Element) -> None:
    """What stands within lines and is not read with them: icons, numbers of lines, doubles of formulas."""
    for element in list(
        body.select("[aria-hidden=true i], [hidden], .linenos, .lineno, .line-number, .gutter")
    ):
        if element.tag in _INLINE and element.find("h1, h2, h3, p, pre") is None:
            element.decompose()


def _is_furniture(blocks: Blocks, at: int, controlled: set[str]) -> bool:
    element, weight = blocks.elements[at], blocks.weights[at]
    tag, role = element.tag, next(iter((element.attr("role") or "").lower().split()), "")
    names = _names(element)
    if any(map(_LINE_NUMBERS.match, names)) or _is_unseen(element, weight, names, role, controlled):
        return True
    if tag in ("main", "article", *_HEADINGS) or role == "main":
        return False
    judge = _JUDGES.get(_SAME_ROLES.get(role, role)) or _JUDGES.get(_MEANINGS.get(tag, ""))
    if judge is not None:
        return judge(element, weight, names)
    small = blocks.ends[at] - at <= _MOST_BLOCKS_OF_A_BAR
    return (small and _reads_like_navigation(element, weight)) or (
        bool(names) and _is_named_like_furniture(element, weight, blocks.weights[0], names)
    )


def _reads_like_navigation(element: Element, weight: Weight) -> bool:
    if weight.steps >= 2 and (weight.steps * 2 >= weight.links or weight.is_mostly_links):
        return weight.running < 2 * _RUNNING_TEXT and weight.links <= _MOST_STEPS and weight.headings == 0
    if not 3 <= weight.links <= _MOST_LINKS_OF_A_BAR or weight.text > _MOST_OF_A_NOTICE:
        return False
    return 0 < weight.running <= 4 * weight.links and _is_bar_of_links(element)


def _is_bar_of_links(element: Element) -> bool:
    between = (node.data for node in element.descendants if isinstance(node, Text) and not _is_linked(node))
    return _SEPARATORS.fullmatch("".join(between)) is not None


def _is_linked(text: Text) -> bool:
    return text.parent is not None and text.parent.closest("a") is not None


def _is_named_like_furniture(element: Element, weight: Weight, whole: Weight, names: list[str]) -> bool:
    if any(map(_ALWAYS_NAVIGATION.search, names)) and not weight.is_prose and not weight.headings:
        return True
    if any(map(_FOOTER.match, names)) and not is_within(element, "main", "article"):
        legal = weight.running < _MOST_OF_A_NOTICE and _LEGAL.search(element.text) is not None
        return weight.is_mostly_links or weight.running < _RUNNING_TEXT or legal
    return (
        weight.is_mostly_links and weight.running * 2 < whole.running and any(map(_NAVIGATION.search, names))
    )


def _is_unseen(element: Element, weight: Weight, names: list[str], role: str, controlled: set[str]) -> bool:
    hidden = element.attr("hidden") if "hidden" in element.attrs else None
    silent = (element.attr("aria-hidden") or "").strip().lower() == "true"
    if hidden is None and not silent:
        return False
    if weight.is_mostly_links or any(map(_CONSENT.search, names)):
        return True
    opened = (
        (hidden or "").strip().lower() == "until-found"
        or role in ("tabpanel", "region")
        or (element.attr("id") or "\0") in controlled
        or any(map(_PANELS.search, names))
    )
    if hidden is None and role not in ("dialog", "alertdialog") and not any(map(_OVERLAY.search, names)):
        opened = opened or weight.blocks > 0  # silent, but seen
    return not opened and not weight.is_prose and not _is_answer(element)


def _is_answer(element: Element) -> bool:
    """Hidden until a script shows it: a definition, code, a table, something with a heading."""
    return element.tag == "dd" or element.find([*_HEADINGS, "pre", "table", "dl"]) is not None


def _is_navigation(_: Element, weight: Weight, __: list[str]) -> bool:
    return not weight.is_prose or (weight.navigation > 1 and weight.running < _LONG_TEXT)


def _is_banner(element: Element, weight: Weight, _: list[str]) -> bool:
    if is_within(element, *_SECTIONS) or (element.attr("role") or "").lower() == "doc-cover":
        return weight.is_mostly_links and weight.headings == 0
    if weight.navigation or weight.is_mostly_links:
        return weight.running < _LONG_TEXT or weight.is_mostly_links
    return weight.headings == 0 and weight.running < _RUNNING_TEXT


def _is_imprint(element: Element, weight: Weight, _: list[str]) -> bool:
    if is_within(element, "blockquote", "figure") or element.select_one(_NOTES) is not None:
        return False
    outermost = not is_within(element, "footer")
    legal = outermost and _LEGAL.search(element.text) is not None
    if is_within(element, "article", "section", "li", "td", "dd"):
        return weight.is_mostly_links or legal
    if is_within(element, "main"):
        return not weight.is_prose
    return weight.is_mostly_links or weight.running < _LONG_TEXT or legal


def _is_aside(_: Element, weight: Weight, __: list[str]) -> bool:
    return weight.is_mostly_links


def _is_bare_form(_: Element, weight: Weight, __: list[str]) -> bool:
    return weight.blocks == 0 and weight.running < 2 * _RUNNING_TEXT


def _is_notice(element: Element, weight: Weight, names: list[str]) -> bool:
    return _is_beside_text(element, weight) or any(map(_CONSENT.search, names))


def _is_script_notice(element: Element, weight: Weight, _: list[str]) -> bool:
    asks = weight.text < _LONG_TEXT and "javascript" in element.text.lower()
    return asks or _is_beside_text(element, weight)


def _is_beside_text(element: Element, weight: Weight) -> bool:
    return weight.is_mostly_links if is_within(element, "main", "article") else not weight.is_prose


_MEANINGS = {
    "nav": "navigation",
    "header": "banner",
    "footer": "contentinfo",
    "aside": "complementary",
    "form": "form",
    "dialog": "dialog",
    "noscript": "noscript",
}
_JUDGES: dict[str, Callable[[Element, Weight, list[str]], bool]] = {
    "navigation": _is_navigation,
    "banner": _is_banner,
    "contentinfo": _is_imprint,
    "complementary": _is_aside,
    "form": _is_bare_form,
    "dialog": _is_notice,
    "noscript": _is_script_notice,
}


def _named_region(blocks: Blocks) -> int:
    """What the page itself names as its main part, unless much of its text is elsewhere."""
    named = [at for at in blocks.within(0) if _is_main(blocks.elements[at])]
    mains = [at for at in named if "hidden" not in blocks.elements[at].attrs] or named
    heaviest = max(mains, key=lambda at: blocks.weights[at].text, default=0)
    if any(
        at >= blocks.ends[heaviest] or blocks.ends[at] <= heaviest for at in mains if blocks.weights[at].text
    ):
        return 0
    return heaviest if blocks.weights[heaviest].text * 4 > blocks.weights[0].text else 0


def _is_main(element: Element) -> bool:
    return element.tag == "main" or (element.attr("role") or "").strip().lower() == "main"


def _drop_contents(blocks: Blocks, region: int) -> None:
    """Lists of the page's own headings; and of pages below it, unless the page is little else."""
    whole = blocks.weights[region]
    named = blocks.elements[region].iter_elements([*_HEADINGS, "dt", "caption", "b", "strong"])
    headings = {words(heading).lower() for heading in named}
    kept = 0
    for at in blocks.within(region):
        element, weight = blocks.elements[at], blocks.weights[at]
        if at < kept or weight.links < 2 or not weight.is_mostly_links or weight.h1s or _is_main(element):
            continue
        if any(map(_CONTENTS.search, _names(element))):
            if weight.elsewhere == 0 or whole.running - weight.running > 3 * weight.text:
                blocks.drop(at)
            else:
                kept = blocks.ends[at]
        elif _repeats(element, weight, headings):
            blocks.drop(at)


def _repeats(element: Element, weight: Weight, headings: set[str]) -> bool:
    """Whether it is a list of links to headings of the page, in their words."""
    if element.tag not in ("ul", "ol", "dl", "table") or weight.elsewhere or weight.links < 4:
        return False
    if weight.linked * 10 < weight.text * 9:
        return False
    links = [words(link).lower() for link in element.iter_elements("a")]
    return sum(link in headings for link in links) * 10 >= len(links) * 7


def _drop_lists_of_links_beside(blocks: Blocks, region: int) -> None:
    """Navigation that nothing names: blocks of links beside the one block that holds the page's text."""
    whole = blocks.weights[region].running
    at = region
    while whole >= _LONG_TEXT:
        children = blocks.directly_within(at)
        heaviest = max(children, key=lambda child: blocks.weights[child].running, default=None)
        if heaviest is None or blocks.weights[heaviest].running * 10 < whole * 8:
            return
        before = None
        for child in children:
            after_heading = before is not None and _announces(blocks.elements[before])
            weight = blocks.weights[child]
            listed = _is_list_of_links(blocks.elements[child], weight) or (
                child < heaviest and _is_sidebar(weight)
            )
            if listed and child != heaviest and not after_heading:
                blocks.drop(child)
            before = child
        at = heaviest


def _announces(element: Element) -> bool:
    return element.tag in _HEADINGS or words(element)[-1:] in (":", "：")


def _is_list_of_links(element: Element, weight: Weight) -> bool:
    if element.tag == "table" and len(element.find_all("tr", limit=2)) > 1:
        return False
    return weight.links >= 5 and weight.linked * 10 >= weight.text * 8 and weight.headings == 0


def _is_sidebar(weight: Weight) -> bool:
    """Several lists of links, each below a heading."""
    lists = weight.headings >= 2 and weight.h1s == 0 and weight.links >= 3 * weight.headings
    return lists and weight.linked * 10 >= (weight.text - weight.titles) * 9


def _with_what_is_outside(blocks: Blocks, region: int) -> Element:
    """The page's only heading and its footnotes belong to its text wherever they stand."""
    body, main = blocks.elements[0], blocks.elements[region]
    if region == 0:
        return main
    outside = [heading for heading in body.iter_elements("h1") if _is_outside(heading, main)]
    if len(outside) == 1 and main.find("h1") is None:
        main.insert(0, outside[0].extract())
    for notes in list(body.select(_NOTES)):
        if main not in notes.ancestors and notes not in main.ancestors:
            main.append(notes.extract())
    return main


def _is_outside(heading: Element, main: Element) -> bool:
    """Of a page; bars with menus have headings of the site."""
    outer = [heading, *(element for element in heading.ancestors if isinstance(element, Element))]
    return (
        main not in outer
        and heading not in main.ancestors
        and bool(words(heading))
        and not any(map(_NAVIGATION.search, chain(*map(_names, outer))))
    )
