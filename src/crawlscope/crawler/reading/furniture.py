"""Which blocks of a page belong to the site around it: navigation, banners, imprints, hidden menus.

A tag, role or class alone never costs text. An element that looks like furniture is furniture if it also
reads like it: links rather than running text.
"""

import re

from turbohtml import Element, Text

from crawlscope.crawler.reading.blocks import HEADINGS, RUNNING_TEXT, Blocks, Weight, names_of
from crawlscope.crawler.reading.tree import is_within
from crawlscope.crawler.reading.unread import CONSENT, MAX_NOTICE

LONG_TEXT = 300
NAVIGATION = re.compile(
    r"(?:^|[-_])(?:nav|navs|navbar|navigation|nav[a-z]*|menu|menus|menubar|side[-_]?bar|side[-_]?nav|side[-_]?menu"
    r"|breadcrumbs?|crumbs?|pagination|pager|prev[-_]?next|next[-_]?prev|toolbar|top[-_]?bar|masthead|related"
    r"|skip[-_]?links?|skip[-_]?nav|skip[-_]?to[-_]?content|sphinxsidebar\w*|[a-z]*sidebar|[a-z]*nav(?:bar)?|jump[a-z]*"
    r"|share|social|search[a-z]*|path|banner)(?:$|[-_\d])"
)
NOTES = ".footnotes, .footnote, [role=doc-endnotes], [role=doc-footnote]"
_ROLES_OF_TAGS = {
    "nav": "navigation",
    "header": "banner",
    "footer": "contentinfo",
    "aside": "complementary",
    "form": "form",
    "dialog": "dialog",
    "noscript": "noscript",
}
_ROLES = {
    **{role: role for role in _ROLES_OF_TAGS.values()},
    **dict.fromkeys(["search", "menu", "menubar", "toolbar", "tree"], "navigation"),
    **dict.fromkeys(["doc-toc", "doc-pagelist"], "navigation"),
    "alertdialog": "dialog",
}
"""Roles by which a block is judged, and the one that they are judged as."""
_ALWAYS_NAVIGATION = re.compile(
    r"(?:^|[-_])(?:nav[-_]?header|nav[-_]?footer|nav[-_]?path|breadcrumbs?|breadcrumb[-_]nav|pagination|prev[-_]?next"
    r"|skip[-_]?links?|skip[-_]?nav|skip[-_]?to[-_]?content|sr[-_]only[-_]focusable|search[-_]?(?:box|form|bar)"
    r"|edit[-_]this[-_]page|edit[-_]on[-_]github|version[-_]?(?:switcher|picker|selector)|language[-_]?(?:switcher|picker))"
    r"(?:$|[-_\d])"
)
_PANELS = re.compile(
    r"(?:^|[-_])(?:tab|tabs|panel|pane|accordion|collaps\w*|content|body|text|answer|solution|hint"
    r"|example|details|spoiler|more|item|slide|step|lang|os|platform)(?:$|[-_])"
)
_OVERLAY = re.compile(r"modal|dialog|overlay|popup|popover|toast|drawer|off-?canvas|menu|tooltip")
_FOOTER = re.compile(r"^(?:(?:site|page|main|global|doc)[-_]?)?footer$")
_LEGAL = re.compile(r"©|\(c\)|copyright|licen[cs]e|all rights reserved|powered by", re.IGNORECASE)
_LINE_NUMBERS = re.compile(
    r"^(?:linenos?|line-?numbers?(?:-rows)?|lineno|gutter|lnt?|rouge-gutter|blob-num)$"
)
_SECTIONS = ("main", "article", "section", "blockquote", "figure", "li", "td", "dd")
_SEPARATORS = re.compile(r"[\s|·•»›>/\[\]]+")
_MAX_BAR_LINKS = 40
_MAX_BAR_BLOCKS = 100
_MAX_STEPS = 12


def is_furniture(blocks: Blocks, at: int, controlled: set[str]) -> bool:
    """`controlled` are the ids of elements that a reader can open with a click."""
    block = _Block(blocks.elements[at], blocks.weights[at])
    if any(map(_LINE_NUMBERS.match, block.names)) or block.is_unseen(controlled):
        return True
    if block.tag in ("main", "article", *HEADINGS) or block.role == "main":
        return False
    role = _ROLES.get(block.role) or _ROLES_OF_TAGS.get(block.tag)
    if role is not None:
        return block.is_furniture_by_role(role)
    small = blocks.ends[at] - at <= _MAX_BAR_BLOCKS
    return (small and block.reads_like_navigation()) or (
        bool(block.names) and block.is_named_like_furniture(blocks.weights[0])
    )


class _Block:
    __slots__ = ("element", "names", "role", "tag", "weight")

    def __init__(self, element: Element, weight: Weight) -> None:
        self.element = element
        self.weight = weight
        self.tag = element.tag
        self.role = next(iter((element.attr("role") or "").lower().split()), "")
        self.names = names_of(element)

    def is_within(self, *tags: str) -> bool:
        return is_within(self.element, *tags)

    def is_furniture_by_role(self, role: str) -> bool:
        weight = self.weight
        match role:
            case "navigation":
                return not weight.is_prose or (weight.navigation > 1 and weight.running < LONG_TEXT)
            case "banner":
                return self.is_banner()
            case "contentinfo":
                return self.is_imprint()
            case "complementary":
                return weight.is_mostly_links
            case "form":
                return weight.blocks == 0 and weight.running < 2 * RUNNING_TEXT
            case "dialog":
                return self.is_beside_text() or any(map(CONSENT.search, self.names))
            case _:  # noscript
                asks = weight.text < LONG_TEXT and "javascript" in self.element.text.lower()
                return asks or self.is_beside_text()

    def is_beside_text(self) -> bool:
        weight = self.weight
        return weight.is_mostly_links if self.is_within("main", "article") else not weight.is_prose

    def is_banner(self) -> bool:
        weight = self.weight
        if self.is_within(*_SECTIONS) or (self.element.attr("role") or "").lower() == "doc-cover":
            return weight.is_mostly_links and weight.headings == 0
        if weight.navigation or weight.is_mostly_links:
            return weight.running < LONG_TEXT or weight.is_mostly_links
        return weight.headings == 0 and weight.running < RUNNING_TEXT

    def is_imprint(self) -> bool:
        weight = self.weight
        if self.is_within("blockquote", "figure") or self.element.select_one(NOTES) is not None:
            return False
        outermost = not self.is_within("footer")
        legal = outermost and _LEGAL.search(self.element.text) is not None
        if self.is_within("article", "section", "li", "td", "dd"):
            return weight.is_mostly_links or legal
        if self.is_within("main"):
            return not weight.is_prose
        return weight.is_mostly_links or weight.running < LONG_TEXT or legal

    def reads_like_navigation(self) -> bool:
        """Steps to the pages beside this one, or a bar: links with nothing but separators between them."""
        weight = self.weight
        if weight.steps >= 2 and (weight.steps * 2 >= weight.links or weight.is_mostly_links):
            return weight.running < 2 * RUNNING_TEXT and weight.links <= _MAX_STEPS and weight.headings == 0
        if not 3 <= weight.links <= _MAX_BAR_LINKS or weight.text > MAX_NOTICE:
            return False
        if not 0 < weight.running <= 4 * weight.links:
            return False
        texts = (node for node in self.element.descendants if isinstance(node, Text))
        between = [text.data for text in texts if text.parent is None or text.parent.closest("a") is None]
        return _SEPARATORS.fullmatch("".join(between)) is not None

    def is_named_like_furniture(self, whole: Weight) -> bool:
        weight = self.weight
        if any(map(_ALWAYS_NAVIGATION.search, self.names)) and not weight.is_prose and not weight.headings:
            return True
        if any(map(_FOOTER.match, self.names)) and not self.is_within("main", "article"):
            legal = weight.running < MAX_NOTICE and _LEGAL.search(self.element.text) is not None
            return weight.is_mostly_links or weight.running < RUNNING_TEXT or legal
        return (
            weight.is_mostly_links
            and weight.running * 2 < whole.running
            and any(map(NAVIGATION.search, self.names))
        )

    def is_unseen(self, controlled: set[str]) -> bool:
        weight = self.weight
        hidden = self.element.attr("hidden") if "hidden" in self.element.attrs else None
        silent = (self.element.attr("aria-hidden") or "").strip().lower() == "true"
        if hidden is None and not silent:
            return False
        if weight.is_mostly_links or any(map(CONSENT.search, self.names)):
            return True
        opened = (
            (hidden or "").strip().lower() == "until-found"
            or self.role in ("tabpanel", "region")
            or (self.element.attr("id") or "\0") in controlled
            or any(map(_PANELS.search, self.names))
        )
        if (
            hidden is None
            and self.role not in ("dialog", "alertdialog")
            and not any(map(_OVERLAY.search, self.names))
        ):
            opened = opened or weight.blocks > 0  # silent, but seen
        if opened or weight.is_prose:
            return False
        # A definition, code, a table, something with a heading is an answer, hidden until a script shows it.
        return self.tag != "dd" and self.element.find([*HEADINGS, "pre", "table", "dl"]) is None
