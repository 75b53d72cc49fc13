"""Which blocks of a page belong to the site around it: navigation, banners, imprints, hidden menus.

A tag, role or class alone never costs text. What looks like furniture is furniture where it reads like it
too: links rather than running text.
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
_ROLES = {
    **dict.fromkeys(
        ["search", "menu", "menubar", "toolbar", "tree", "doc-toc", "doc-pagelist"], "navigation"
    ),
    "alertdialog": "dialog",
}
"""Roles that are judged like another one."""
_ROLES_OF_TAGS = {
    "nav": "navigation",
    "header": "banner",
    "footer": "contentinfo",
    "aside": "complementary",
    "form": "form",
    "dialog": "dialog",
    "noscript": "noscript",
}
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
    """`controlled` are the ids of what a reader can open with a click."""
    element, weight, names = blocks.elements[at], blocks.weights[at], names_of(blocks.elements[at])
    tag, role = element.tag, next(iter((element.attr("role") or "").lower().split()), "")
    if any(map(_LINE_NUMBERS.match, names)) or _is_unseen(element, weight, names, role, controlled):
        return True
    if tag in ("main", "article", *HEADINGS) or role == "main":
        return False
    by_role = _is_furniture_by_role(_ROLES.get(role, role), element, weight, names)
    if by_role is None:
        by_role = _is_furniture_by_role(_ROLES_OF_TAGS.get(tag, ""), element, weight, names)
    if by_role is not None:
        return by_role
    small = blocks.ends[at] - at <= _MAX_BAR_BLOCKS
    return (small and _reads_like_navigation(element, weight)) or (
        bool(names) and _is_named_like_furniture(element, weight, blocks.weights[0], names)
    )


def _is_furniture_by_role(role: str, element: Element, weight: Weight, names: list[str]) -> bool | None:
    """None where the role says nothing."""
    match role:
        case "navigation":
            return not weight.is_prose or (weight.navigation > 1 and weight.running < LONG_TEXT)
        case "banner":
            return _is_banner(element, weight)
        case "contentinfo":
            return _is_imprint(element, weight)
        case "complementary":
            return weight.is_mostly_links
        case "form":
            return weight.blocks == 0 and weight.running < 2 * RUNNING_TEXT
        case "dialog":
            return _is_beside_text(element, weight) or any(map(CONSENT.search, names))
        case "noscript":
            asks = weight.text < LONG_TEXT and "javascript" in element.text.lower()
            return asks or _is_beside_text(element, weight)
    return None


def _is_beside_text(element: Element, weight: Weight) -> bool:
    return weight.is_mostly_links if is_within(element, "main", "article") else not weight.is_prose


def _is_banner(element: Element, weight: Weight) -> bool:
    if is_within(element, *_SECTIONS) or (element.attr("role") or "").lower() == "doc-cover":
        return weight.is_mostly_links and weight.headings == 0
    if weight.navigation or weight.is_mostly_links:
        return weight.running < LONG_TEXT or weight.is_mostly_links
    return weight.headings == 0 and weight.running < RUNNING_TEXT


def _is_imprint(element: Element, weight: Weight) -> bool:
    if is_within(element, "blockquote", "figure") or element.select_one(NOTES) is not None:
        return False
    outermost = not is_within(element, "footer")
    legal = outermost and _LEGAL.search(element.text) is not None
    if is_within(element, "article", "section", "li", "td", "dd"):
        return weight.is_mostly_links or legal
    if is_within(element, "main"):
        return not weight.is_prose
    return weight.is_mostly_links or weight.running < LONG_TEXT or legal


def _reads_like_navigation(element: Element, weight: Weight) -> bool:
    """Steps to the pages beside this one, or a bar: links with nothing but separators between them."""
    if weight.steps >= 2 and (weight.steps * 2 >= weight.links or weight.is_mostly_links):
        return weight.running < 2 * RUNNING_TEXT and weight.links <= _MAX_STEPS and weight.headings == 0
    if not 3 <= weight.links <= _MAX_BAR_LINKS or weight.text > MAX_NOTICE:
        return False
    if not 0 < weight.running <= 4 * weight.links:
        return False
    texts = (node for node in element.descendants if isinstance(node, Text))
    between = [text.data for text in texts if text.parent is None or text.parent.closest("a") is None]
    return _SEPARATORS.fullmatch("".join(between)) is not None


def _is_named_like_furniture(element: Element, weight: Weight, whole: Weight, names: list[str]) -> bool:
    if any(map(_ALWAYS_NAVIGATION.search, names)) and not weight.is_prose and not weight.headings:
        return True
    if any(map(_FOOTER.match, names)) and not is_within(element, "main", "article"):
        legal = weight.running < MAX_NOTICE and _LEGAL.search(element.text) is not None
        return weight.is_mostly_links or weight.running < RUNNING_TEXT or legal
    return (
        weight.is_mostly_links and weight.running * 2 < whole.running and any(map(NAVIGATION.search, names))
    )


def _is_unseen(element: Element, weight: Weight, names: list[str], role: str, controlled: set[str]) -> bool:
    hidden = element.attr("hidden") if "hidden" in element.attrs else None
    silent = (element.attr("aria-hidden") or "").strip().lower() == "true"
    if hidden is None and not silent:
        return False
    if weight.is_mostly_links or any(map(CONSENT.search, names)):
        return True
    opened = (
        (hidden or "").strip().lower() == "until-found"
        or role in ("tabpanel", "region")
        or (element.attr("id") or "\0") in controlled
        or any(map(_PANELS.search, names))
    )
    if hidden is None and role not in ("dialog", "alertdialog") and not any(map(_OVERLAY.search, names)):
        opened = opened or weight.blocks > 0  # silent, but seen
    if opened or weight.is_prose:
        return False
    # A definition, code, a table, something with a heading is an answer, hidden until a script shows it.
    return element.tag != "dd" and element.find([*HEADINGS, "pre", "table", "dl"]) is None
