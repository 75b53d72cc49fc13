"""From an HTML page to its Markdown: its main content without the site's furniture."""

import re
from dataclasses import dataclass, field

import structlog
from html_to_markdown import ConversionError, ConversionOptions, PreprocessingOptions, convert
from turbohtml import Element, Text

from crawlscope.crawler.reading.anchors import plain_links
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.code import CODE, plain_code, plain_signatures
from crawlscope.crawler.reading.formulas import write_formulas, write_readings
from crawlscope.crawler.reading.head import read_head
from crawlscope.crawler.reading.legacy import end_headings, mark_docstrings
from crawlscope.crawler.reading.region import main_region
from crawlscope.crawler.reading.tables import mark_tables, plain_tables
from crawlscope.crawler.reading.tree import clean, parse

log = structlog.get_logger(__name__)

_CODE = ",".join(["pre", *CODE])
_PLAIN = [
    "span", "font", "u", "mark", "small", "big", "ins", "abbr", "acronym", "bdi", "bdo", "dfn", "center",
    "nobr", "noscript", "label", "data", "time", "output", "slot", "object", "canvas", "ruby", "rb", "cite",
    "var", "wbr",
]  # fmt: skip
_INLINE = ["a", "b", "code", "del", "em", "i", "img", "kbd", "q", "s", "samp", "strike", "strong", "tt"]
_MAX_INLINE = 200
# Line breaks next to an element are none to the converter.
_SPACE_WITHIN = re.compile(r"(?<=\S) (?=\S)")
_KEPT = {
    "a": ("href",), "img": ("src", "alt"), "ol": ("start",), "code": ("class",),
    "td": ("colspan",), "th": ("colspan",),
}  # fmt: skip
_MAX_ATTRIBUTES = 50
_MARKUP = re.compile(r"<(?!https?://)(?=[!/?a-zA-Z])|`|(?<=\])[(\[]")
_MARKUP_IN_LINKS = re.compile(r"<(?!https?://)(?=[!/?a-zA-Z])|`|[\[\]]")
# The converter doubles a backslash in the text, and passes on what no text has.
_BACKSLASH = "\x1a"
_CONVERSION = ConversionOptions(
    preprocessing=PreprocessingOptions(enabled=False),
    extract_metadata=False,
    inline_data_media="drop_element",
    compact_tables=True,
    autolinks=False,
)


@dataclass(frozen=True)
class PageText:
    markdown: str
    title: str | None = None
    description: str | None = None
    language: str | None = None
    """A BCP 47 tag, as the page declares it."""
    links: list[str] = field(default_factory=list)
    """Absolute, each once, in the order of the page, its navigation, frames and image maps included; empty if
    the page forbids to follow them."""
    canonical: str | None = None
    """The absolute URL that the page names as its own."""
    refresh: str | None = None
    """Absolute: where the page sends its readers without a click of theirs."""
    nofollow: bool = False
    noindex: bool = False


def to_markdown(html: bytes | str, url: str, charset: str | None = None) -> PageText:
    """Takes time in proportion to the page; broken HTML never raises. Relative links start from `url`."""
    document = parse(decode(html, charset) if isinstance(html, bytes) else html)
    head = read_head(document, url)
    body = document.find("body")
    if body is None and (frameless := document.find("noframes")) is not None:
        body = parse(frameless.text).find("body")
    return PageText(
        markdown="" if body is None else _markdown_of(body, url, head.base),
        title=head.title,
        description=head.description,
        language=head.language,
        links=head.links,
        canonical=head.canonical,
        refresh=head.refresh,
        nofollow=head.nofollow,
        noindex=head.noindex,
    )


def _markdown_of(body: Element, url: str, base: str) -> str:
    region = main_region(body)
    mark_docstrings(region)
    end_headings(region)
    mark_tables(region)
    plain_tables(region)
    write_formulas(region)
    write_readings(region)
    plain_signatures(region)
    plain_code(region)
    plain_links(region, url, base)
    for element in list(region.iter_elements(_PLAIN)):
        element.unwrap()
    for summary in list(region.select("summary:has(h1, h2, h3, h4, h5, h6)")):
        summary.tag = "div"
    _escape_markup(region)
    _break_endless_lines(region)
    html = _without_attributes(region).html
    try:
        markdown = convert(html, _CONVERSION).content or ""
    except ConversionError as error:
        log.warning("page_formatting_dropped", reason=str(error))
        markdown = "\n\n".join(line for text in region.strings if (line := text.strip()))
    # The converter escapes a bracket that has no other a second time.
    once = markdown.replace(f"{_BACKSLASH}\\", _BACKSLASH)
    return once.replace("\xa0", " ").replace(_BACKSLASH, "\\").strip()


def _escape_markup(region: Element) -> None:
    """Tags, backticks and brackets in the text of a page stay text in the Markdown."""
    for image in region.iter_elements("img"):
        if alternative := image.attr("alt"):
            image.attrs["alt"] = _MARKUP_IN_LINKS.sub(rf"{_BACKSLASH}\g<0>", clean(alternative))
    for node in list(region.descendants):
        if isinstance(node, Element):
            continue
        if not isinstance(node, Text):
            node.decompose()
            continue
        data, outer = clean(node.data), node.parent
        if _MARKUP_IN_LINKS.search(data) and (outer is None or outer.closest(_CODE) is None):
            is_linked = outer is not None and outer.closest("a") is not None
            markup = _MARKUP_IN_LINKS if is_linked else _MARKUP
            data = markup.sub(rf"{_BACKSLASH}\g<0>", data)
        if data != node.data:
            node.data = data


def _break_endless_lines(region: Element) -> None:
    """The converter looks back to the start of the line at every inline element."""
    on_this_line = 0
    for element in list(region.iter_elements()):
        after = element.next_sibling
        tail = after.data if isinstance(after, Text) else ""
        on_this_line = on_this_line + 1 if element.tag in _INLINE and "\n" not in tail else 0
        if on_this_line <= _MAX_INLINE:
            continue
        space = _SPACE_WITHIN.search(tail)
        if space and isinstance(after, Text):
            after.data = f"{tail[: space.start()]}\n{tail[space.end() :]}"
        elif on_this_line > 10 * _MAX_INLINE:
            element.insert_after(Element("br"))
        else:
            continue
        on_this_line = 0


def _without_attributes(region: Element) -> Element:
    """None but those that Markdown has a place for: pages have thousands, which every reader compares."""
    root = region
    for element in list(region.iter_elements(include_self=True)):
        kept = _KEPT.get(element.tag, ())
        if len(element.attrs) > _MAX_ATTRIBUTES:
            tag = element.tag if element.tag.isalnum() and element.tag.isascii() else "div"
            bare = Element(tag, {name: element.attr(name) for name in kept if name in element.attrs})
            bare.extend(list(element))
            element.replace_with(bare)
            root = bare if element == region else root
            continue
        for name in list(element.attrs):
            if name not in kept:
                del element.attrs[name]
    return root
