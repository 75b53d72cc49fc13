"""Drops what nobody reads as text: scripts, controls, questions about cookies, marks within lines."""

import re
from itertools import islice

from turbohtml import DocumentFragment, Element

from crawlscope.crawler.reading.blocks import HEADINGS, INLINE, names_of, weigh
from crawlscope.crawler.reading.tree import is_within

CONSENT = re.compile(r"cookie|consent|gdpr|^cc-window$|^onetrust")
MAX_NOTICE = 2000
_NEVER_TEXT = [
    "script", "style", "template", "svg", "iframe", "embed", "audio", "video", "source", "track", "map",
    "head", "title", "link", "meta", "base", "datalist", "progress", "meter", "param", "noframes", "frame",
]  # fmt: skip
_CONTROLS = ["input", "select", "textarea", "button"]
_NAMING = (*HEADINGS, "summary", "dt", "legend", "caption", "th", "figcaption")
_MAY_ASK_CONSENT = ", ".join(
    f"[{attribute}*={name} i]"
    for attribute in ("class", "id", "aria-label")
    for name in ("cookie", "consent", "gdpr", "cc-window", "onetrust")
)
_CONSENT_BANNER = re.compile(
    r"(?:cookie|consent|gdpr)s?[-_ ]?(?:banner|bar|notice|notification|consent|popup|modal"
    r"|dialog|overlay|law)"
    r"|cookiebot|^cc-window$|^onetrust"
)
_ACCORDION = re.compile(r"accordion|collaps|faq|question|disclosure|expand|toggle")


def drop_never_text(body: Element) -> None:
    for element in list(body.iter_elements(_NEVER_TEXT)):
        if element.tag == "template" and ("shadowroot" in element.attrs or "shadowrootmode" in element.attrs):
            for part in list(element):
                inner = list(part) if isinstance(part, DocumentFragment) else [part]
                element.insert_before(*[node.extract() for node in inner])
            element.decompose()
        elif element.tag != "noframes" and not (element.tag == "map" and element.text.strip()):
            element.decompose()
    for element in list(body.iter_elements(["object", "canvas"])):
        element.unwrap()


def drop_marks(body: Element) -> None:
    """Drops elements within lines that are not read with them: icons, line numbers, copies of formulas."""
    marks = body.select("[aria-hidden=true i], [hidden], .linenos, .lineno, .line-number, .gutter")
    for element in list(marks):
        if element.tag in INLINE and element.find("h1, h2, h3, p, pre") is None:
            element.decompose()


def drop_consent(body: Element) -> None:
    """A chapter on cookies has no button to accept them."""
    for element in list(body.select(_MAY_ASK_CONSENT)):
        names = [*names_of(element), (element.attr("aria-label") or "").lower()]
        answers = element.select_one("button, input, [role=button], a[class*=btn i], a[class*=button i]")
        named = any(map(_CONSENT_BANNER.search, names)) and element.select_one("h1, h2, h3") is None
        asks = named or (answers is not None and any(map(CONSENT.search, names)))
        if is_within(element, "main", "article"):
            asks = named and answers is not None
        if asks and weigh(element.text) < MAX_NOTICE:
            element.decompose()


def drop_controls(body: Element) -> None:
    """Questions that open their answers are headings; "Copy" and "Menu" name nothing."""
    for element in list(body.iter_elements(_CONTROLS)):
        shown = next((node for node in islice(element.next_siblings, 2) if isinstance(node, Element)), None)
        is_button = element.tag == "button"
        if is_button and shown is not None and shown.tag not in INLINE and "hidden" in shown.attrs:
            del shown.attrs["hidden"]  # what follows a button is a click away
        opens = "aria-expanded" in element.attrs or "aria-controls" in element.attrs
        if is_button and (
            is_within(element, *_NAMING)
            or (element.attr("role") or "").lower() == "tab"
            or any(map(_ACCORDION.search, names_of(element)))
            or (opens and weigh(element.text) >= 12)
            or element.text.rstrip().endswith(("?", "？"))
        ):
            element.unwrap()
        elif element.tag == "textarea" and "readonly" in element.attrs:
            element.tag = "pre"
        else:
            element.decompose()
