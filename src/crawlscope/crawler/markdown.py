"""From an HTML page to the Markdown of what it says: its main content without the site's furniture."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from urllib.parse import urljoin

import structlog
from html_to_markdown import ConversionError, ConversionOptions, PreprocessingOptions, convert
from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from crawlscope.crawler.charset import decode
from crawlscope.crawler.layout import clean, unfold_layout

log = structlog.get_logger(__name__)

_NEVER_TEXT = [
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "iframe",
    "object",
    "embed",
    "canvas",
    "dialog",
]
_CONTROLS = ["input", "select", "textarea", "button"]
_FURNITURE = ["nav", "footer", "header", "aside", "form"]
_FURNITURE_ROLES = frozenset(["navigation", "banner", "contentinfo", "search", "menu", "menubar", "dialog"])
_INLINE = frozenset(
    ["a", "abbr", "b", "cite", "code", "del", "em", "font", "i", "kbd", "mark", "s", "samp", "small"]
)
_INLINE |= {"span", "strong", "sub", "sup", "tt", "u", "var"}
_MOST_INLINE = 200
# Line breaks next to an element are none to the converter.
_SPACE_WITHIN = re.compile(r"(?<=\S) (?=\S)")
_PERMALINKS = frozenset({"", "#", "¶", "§", "🔗", "\uf0c1"})
_CONVERSION = ConversionOptions(
    preprocessing=PreprocessingOptions(enabled=False),
    extract_metadata=False,
    inline_data_media="drop_element",
    compact_tables=True,
    autolinks=False,
)
_REFRESH = re.compile(
    r"""\s*+[\d.]++[\s;,]\s*+[;,]?\s*+(?:url\s*+=\s*+)?+(?:"([^"]++)|'([^']++)|([^\s"'].*))""",
    re.IGNORECASE | re.DOTALL,
)
_CROWDED_TAG = re.compile(r"<[^<>]{10000,}>")
_MOST_ATTRIBUTES = 500


@dataclass(frozen=True)
class PageText:
    markdown: str
    title: str | None = None
    description: str | None = None
    language: str | None = None
    links: list[str] = field(default_factory=list)
    """Absolute, each once, in the order of the page, its navigation, frames and image maps included; empty
    where it asks not to be followed."""
    canonical: str | None = None
    """The absolute URL that the page names as its own."""
    refresh: str | None = None
    """Absolute: where the page sends its readers without a click of theirs."""
    nofollow: bool = False
    noindex: bool = False


def to_markdown(html: bytes | str, url: str, charset: str | None = None) -> PageText:
    """Takes time in proportion to the page; broken HTML never raises. Relative links start from `url`."""
    text = decode(html, charset) if isinstance(html, bytes) else html
    document = _parse(text)
    if document is None:
        return PageText(markdown="")
    base = _base(document, url)
    directives = _directives(document)
    nofollow = not directives.isdisjoint({"nofollow", "none"})
    page = PageText(
        markdown="",
        links=[] if nofollow else _links(document, base),
        canonical=_canonical(document, base),
        refresh=_refresh(document, base),
        nofollow=nofollow,
        noindex=not directives.isdisjoint({"noindex", "none"}),
        **_facts(document),
    )
    return replace(page, markdown=_main_markdown(document, url, base))


def _parse(text: str) -> HtmlElement | None:
    text = _CROWDED_TAG.sub(_without_crowd, clean(text))
    # libxml2 refuses text that declares an encoding, bytes it takes as told.
    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        document: HtmlElement = document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return None
    _clean_texts(document)
    return document


def _clean_texts(document: HtmlElement) -> None:
    """References such as `&#8;` become characters only as the page is parsed."""
    for node in document.iter():
        if node.text:
            node.text = clean(node.text)
        if node.tail:
            node.tail = clean(node.tail)


def _without_crowd(tag: re.Match[str]) -> str:
    """Every parser compares each attribute of a tag with all others."""
    return tag.group() if tag.group().count("=") + tag.group().count(" ") <= _MOST_ATTRIBUTES else ""


def _facts(document: HtmlElement) -> dict[str, str | None]:
    return {
        "title": _first(
            document, "//title[not(ancestor::svg)]//text()", '//meta[@property="og:title"]/@content'
        ),
        "description": _first(
            document, '//meta[@name="description"]/@content', '//meta[@property="og:description"]/@content'
        ),
        "language": _first(document, "/html/@lang", '//meta[@http-equiv="content-language"]/@content'),
    }


def _first(document: HtmlElement, *paths: str) -> str | None:
    for path in paths:
        for found in document.xpath(path):
            words = " ".join(str(found).split())
            if words:
                return words
    return None


def _metas(document: HtmlElement, attribute: str, name: str) -> Iterator[str]:
    """What the page says in each `<meta>` of that name, in whatever case it is written."""
    for meta in document.iter("meta"):
        if (meta.get(attribute) or "").strip().lower() == name:
            yield meta.get("content") or ""


def _directives(document: HtmlElement) -> set[str]:
    """What the page asks of robots, in lower case."""
    return {
        word
        for content in _metas(document, "name", "robots")
        for word in re.split(r"[\s,;]+", content.lower())
    }


def _canonical(document: HtmlElement, base: str) -> str | None:
    for link in document.iter("link"):
        if "canonical" in (link.get("rel") or "").lower().split() and (link.get("href") or "").strip():
            return _join(base, link.get("href", ""))
    return None


def _refresh(document: HtmlElement, base: str) -> str | None:
    for content in _metas(document, "http-equiv", "refresh"):
        found = _REFRESH.match(content)
        if found:
            return _join(base, next(filter(None, found.groups())))
    return None


def _links(document: HtmlElement, base: str) -> list[str]:
    paths = "//a/@href | //area/@href | //frame/@src | //iframe/@src"
    hrefs = dict.fromkeys(str(href).partition("#")[0] for href in document.xpath(paths))
    found = (_join(base, href) for href in hrefs if href.strip())
    return list(dict.fromkeys(link for link in found if link))


def _base(document: HtmlElement, url: str) -> str:
    return _join(url, _first(document, "//base/@href") or "") or url


def _join(base: str, href: str) -> str | None:
    try:
        joined = urljoin(base, href.strip())
    except ValueError:
        return None
    return joined if joined[:8].lower().startswith(("http://", "https://")) else None


def _main_markdown(document: HtmlElement, url: str, base: str) -> str:
    body = document.find("body")
    if body is None:
        return ""
    _drop_furniture(body)
    region = _main_region(body)
    unfold_layout(region)
    _plain_signatures(region)
    _plain_links(region, url, base)
    _break_endless_lines(region)
    return _convert(region)


def _drop_furniture(body: HtmlElement) -> None:
    for element in list(body.iter(*_NEVER_TEXT, *_CONTROLS, *_FURNITURE)):
        if element.tag not in _FURNITURE or not _is_content(element):
            element.drop_tree()
    for element in body.xpath(".//*[@role or @hidden or @aria-hidden]"):
        unseen = element.get("hidden") is not None or element.get("aria-hidden") == "true"
        if unseen or element.get("role") in _FURNITURE_ROLES:
            element.drop_tree()


def _is_content(element: HtmlElement) -> bool:
    match element.tag:
        case "header" | "aside":
            return any(
                outer.tag in ("main", "article") or outer.get("role") == "main"
                for outer in element.iterancestors()
            )
        case "footer":
            return next(element.iterancestors("blockquote"), None) is not None
        case "form":
            # Some frameworks wrap the whole page in one form: running text shows it.
            return next(element.iter("p", "h1", "h2", "article"), None) is not None
        case _:
            return False


def _main_region(body: HtmlElement) -> HtmlElement:
    """What the page itself names as its main part, unless most of its text is elsewhere."""
    whole = _weight(body)
    for path, least_share in (('.//main | .//*[@role="main"]', 0.1), (".//article", 0.5)):
        regions = sorted(body.xpath(path), key=_weight)
        if regions and _weight(regions[-1]) > least_share * whole:
            region: HtmlElement = regions[-1]
            return region
    return body


def _weight(element: HtmlElement) -> int:
    return int(element.xpath("string-length()"))


def _plain_signatures(region: HtmlElement) -> None:
    """Sphinx sets every parameter of a signature in markup of its own: one piece of code reads better."""
    for term in region.xpath('.//dt[contains(concat(" ", @class, " "), " sig ")]'):
        for anchor in list(term.iter("a")):
            anchor.drop_tree()
        words = " ".join(term.text_content().split())
        term.clear(keep_tail=True)
        etree.SubElement(term, "code").text = words


def _plain_links(region: HtmlElement, url: str, base: str) -> None:
    """Links to elsewhere are made absolute; permalink marks go; links within the page become their text."""
    page = url.partition("#")[0]
    target_of = cache(partial(_join, base))
    for anchor in list(region.iter("a")):
        href = anchor.get("href", "#")
        target = None if href.startswith("#") else target_of(href)
        if "".join(anchor.itertext()).strip() in _PERMALINKS and anchor.find(".//img") is None:
            anchor.drop_tree()
        elif target is None or target.partition("#")[0] == page:
            anchor.drop_tag()
        else:
            anchor.attrib.clear()
            anchor.set("href", clean(target))


def _break_endless_lines(region: HtmlElement) -> None:
    """The converter looks back to the start of the line at every inline element."""
    on_this_line = 0
    for element in list(region.iter(etree.Element)):
        tail = element.tail or ""
        on_this_line = on_this_line + 1 if element.tag in _INLINE and "\n" not in tail else 0
        if on_this_line <= _MOST_INLINE or next(element.iterancestors("pre"), None) is not None:
            continue
        words = _SPACE_WITHIN.search(tail)
        if words:
            element.tail = f"{tail[: words.start()]}\n{tail[words.end() :]}"
        elif on_this_line > 10 * _MOST_INLINE:
            element.addnext(etree.Element("br"))
        else:
            continue
        on_this_line = 0


def _convert(region: HtmlElement) -> str:
    html = etree.tostring(region, method="html", encoding="unicode", with_tail=False)
    try:
        markdown = convert(html, _CONVERSION).content or ""
    except ConversionError as error:
        log.warning("page_kept_as_plain_text", reason=str(error))
        markdown = "\n\n".join(line for text in region.itertext() if (line := text.strip()))
    return markdown.replace("\xa0", " ").strip()
