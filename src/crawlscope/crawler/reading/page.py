"""What a fetched page says, by its content type, its first bytes and its headers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape

from crawlscope.crawler.fetch import ROBOT, FetchedPage, may_hold_text
from crawlscope.crawler.links import absolute
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.head import refresh_target
from crawlscope.crawler.reading.markdown import PageText, to_markdown
from crawlscope.crawler.reading.xml_pages import listing_of, parse_xml, root_name, texts_of, title_of

_XML_TYPES = frozenset({"text/xml", "application/xml"})
_HTML_TYPES = frozenset(
    {"text/html", "text/htm", "text/xhtml", "text/x-server-parsed-html", "application/html"}
)
_LOOKED_AT = 1024
# What the WHATWG's MIME sniffing takes for HTML, and for no text at all.
_HTML = re.compile(
    r"\s*<(?:!--|(?:!doctype\s+html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[\s>])",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[A-Za-z][^<>]*>")
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_SELF_CLOSED = re.compile(
    r"""<(?!(?:area|base|br|col|embed|frame|hr|img|input|link|meta|param|source|track|wbr)[\s/>])"""
    r"""([a-z][\w.-]*+)((?:[^<>"'/]|"[^"]*+"|'[^']*+'|/(?!>))*+)/>""",
    re.IGNORECASE,
)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_OWN_ENTITIES = re.compile(r"<!doctype\b[^\[>]*+\[[^\]]*+\]\s*+>", re.IGNORECASE)
_PROLOGUE_WITHIN = 16_384
_PREFIX = re.compile(r"(</?)(?:html|xhtml|h|x):(?=[a-z])")
_CANONICAL = re.compile(r"""<([^<>]*)>[^<,]*;\s*rel\s*=\s*["']?[^"',;]*\bcanonical\b""", re.IGNORECASE)
_SCOPED = re.compile(r"\s*([\w-]+)\s*:(.*)", re.DOTALL)
_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def read_page(page: FetchedPage) -> PageText:
    """HTML becomes Markdown, other XML its plain text, other text stays as it is, all else has no text.

    Blocks: call it in a thread.
    """
    text = _by_content(page)
    canonical = _CANONICAL.search(page.headers.get("link", ""))
    asked = set(_robots_tag(page.headers.get("x-robots-tag", "")))
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
        return _xml(page, text)
    if not kind and _HTML.match(text):
        return to_markdown(page.body, page.url, page.charset)
    return PageText(markdown="" if _NO_TEXT.search(text, 0, _LOOKED_AT) else text)


def _xml(page: FetchedPage, text: str) -> PageText:
    if root_name(text) == "html":
        return to_markdown(_as_html(text), page.url)
    root = parse_xml(text)
    if root is None:
        return PageText(markdown=text)
    pieces = [to_markdown(each, page.url).markdown if _TAG.search(each) else each for each in texts_of(root)]
    return PageText("\n".join(pieces), title=title_of(root), links=listing_of(text, page.url).pages)


def _as_html(xhtml: str) -> str:
    """XML ends `<script/>` where it stands; to HTML it begins there, and swallows the page."""
    without = _OWN_ENTITIES.sub("", xhtml[:_PROLOGUE_WITHIN]) + xhtml[_PROLOGUE_WITHIN:]
    plain = _CDATA.sub(lambda section: escape(section[1], quote=False), without)
    return _SELF_CLOSED.sub(r"<\1\2></\1>", _PREFIX.sub(r"\1", plain))


def _robots_tag(header: str) -> Iterator[str]:
    """What `X-Robots-Tag` asks of every robot or of this one, in lower case."""
    for line in header.lower().splitlines():
        scoped = _SCOPED.match(line)
        if scoped and scoped[1] not in _WITH_VALUES:
            if scoped[1] != ROBOT.lower():
                continue
            line = scoped[2]  # noqa: PLW2901
        yield from (word.strip() for word in line.split(","))
