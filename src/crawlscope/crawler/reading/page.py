"""Reads a fetched page, by its content type, its first bytes and its headers."""

import re
from dataclasses import replace
from html import escape

from crawlscope.crawler.fetch import FetchedPage, may_hold_text
from crawlscope.crawler.links import absolute
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.head import refresh_target, robots_directives
from crawlscope.crawler.reading.markdown import PageText, to_markdown
from crawlscope.crawler.reading.xml_pages import listing_of, parse_xml, root_name, texts_of, title_of

_XML_TYPES = frozenset({"text/xml", "application/xml"})
_HTML_TYPES = frozenset(
    {"text/html", "text/htm", "text/xhtml", "text/x-server-parsed-html", "application/html"}
)
_LOOKED_AT = 1024
# Beginnings that the WHATWG's MIME sniffing takes for HTML, and bytes that no text contains.
_HTML = re.compile(
    r"\s*<(?:!--|(?:!doctype\s+html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[\s>])",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[A-Za-z][^<>]*>")
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_SELF_CLOSED = re.compile(
    r"""<(?!(?:area|base|br|col|embed|frame|hr|img|input|link|meta|param|source|track|wbr)[\s/>])"""
    r"""([a-z][\w.-]*+)((?:[^<>"'/]|"[^"]*+"|'[^']*+'|/(?!>))*)/>""",
    re.IGNORECASE,
)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_OWN_ENTITIES = re.compile(r"<!doctype\b[^\[>]*+\[[^\]]*+\]\s*+>", re.IGNORECASE)
_PROLOGUE_WITHIN = 16_384
_PREFIX = re.compile(r"(</?)(?:html|xhtml|h|x):(?=[a-z])")
_CANONICAL = re.compile(r"""<([^<>]*)>[^<,]*;\s*rel\s*=\s*["']?[^"',;]*\bcanonical\b""", re.IGNORECASE)


def read_page(page: FetchedPage) -> PageText:
    """HTML becomes Markdown, other XML its plain text, other text stays as it is, all else has no text.

    Blocks: call it in a thread.
    """
    text = _by_content(page)
    canonical = _CANONICAL.search(page.headers.get("link", ""))
    asked = set(robots_directives(page.headers.get("x-robots-tag", "")))
    nofollow = text.nofollow or not asked.isdisjoint({"nofollow", "none"})
    return replace(
        text,
        links=[] if nofollow else text.links,
        nofollow=nofollow,
        noindex=text.noindex or not asked.isdisjoint({"noindex", "none"}),
        canonical=text.canonical or (absolute(canonical[1], page.url) if canonical else None),
        refresh=text.refresh or refresh_target(page.headers.get("refresh", ""), page.url),
    )


def _by_content(page: FetchedPage) -> PageText:
    kind = page.media_type
    if kind in _HTML_TYPES:
        return to_markdown(page.body, page.url, page.charset)
    if not may_hold_text(kind):
        return PageText(markdown="")
    text = decode(page.body, page.charset)
    if kind in _XML_TYPES or kind.endswith("+xml") or (not kind and text.lstrip().startswith("<?xml")):
        return _xml(text, page.url)
    if not kind and _HTML.match(text):
        return to_markdown(page.body, page.url, page.charset)
    return PageText(markdown="" if _NO_TEXT.search(text, 0, _LOOKED_AT) else text)


def _xml(text: str, url: str) -> PageText:
    if root_name(text) == "html":
        # XML ends `<script/>` where it stands; to HTML it begins there, and swallows the page.
        html = _OWN_ENTITIES.sub("", text[:_PROLOGUE_WITHIN]) + text[_PROLOGUE_WITHIN:]
        html = _CDATA.sub(lambda section: escape(section[1], quote=False), html)
        return to_markdown(_SELF_CLOSED.sub(r"<\1\2></\1>", _PREFIX.sub(r"\1", html)), url)
    root = parse_xml(text)
    if root is None:
        return PageText(markdown=text)
    pieces = [to_markdown(each, url).markdown if _TAG.search(each) else each for each in texts_of(root)]
    return PageText("\n".join(pieces), title=title_of(root), links=listing_of(text, url).pages)
