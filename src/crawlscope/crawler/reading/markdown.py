"""From an HTML page to the Markdown of what it says: its main content without the site's furniture."""

import re
from dataclasses import dataclass, field
from functools import cache, partial

import structlog
from html_to_markdown import ConversionError, ConversionOptions, PreprocessingOptions, convert
from turbohtml import Document, Element, Text

from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.furniture import main_region
from crawlscope.crawler.reading.head import join, read_head
from crawlscope.crawler.reading.layout import unfold_layout
from crawlscope.crawler.reading.tree import clean, is_within, parse, words

log = structlog.get_logger(__name__)

_CODE = "pre, code, kbd, samp, tt"
_PLAIN = [
    "span",
    "font",
    "u",
    "mark",
    "small",
    "big",
    "ins",
    "abbr",
    "acronym",
    "bdi",
    "bdo",
    "dfn",
    "center",
    "nobr",
]
_PLAIN += [
    "noscript",
    "label",
    "data",
    "time",
    "output",
    "slot",
    "object",
    "canvas",
    "ruby",
    "rb",
    "cite",
    "var",
    "wbr",
]
_INLINE = ["a", "b", "code", "del", "em", "i", "img", "kbd", "q", "s", "samp", "strike", "strong", "tt"]
_BLOCK_IN_CODE = ["div", "p", "li", "tr"]
_MOST_INLINE = 200
# Line breaks next to an element are none to the converter.
_SPACE_WITHIN = re.compile(r"(?<=\S) (?=\S)")
_PERMALINKS = frozenset(
    {"", "#", "¶", "§", "🔗", "\uf0c1", "⚓", "⚓\ufe0e", "[link]", "permalink", "\u200b", "↩", "↩\ufe0e"}
)
_PERMALINK_NAMES = re.compile(
    r"(?:^|\s)(?:headerlink|hash-link|anchor-link|heading-?anchor|header-anchor|anchorjs-link)(?:\s|$)"
)
_SKIPS = re.compile(r"(?:skip|jump) (?:to|past|over) .{1,40}", re.IGNORECASE)
_LANGUAGE_CLASS = re.compile(
    r"(?:^|[\s-])(?:language|lang|highlight|brush:?|sourceCode)[\s-]\s*([\w+#.-]{1,20})"
)
_NO_LANGUAGE = frozenset(
    {"default", "none", "notranslate", "text", "plain", "plaintext", "numberSource", "highlight"}
)
_KEPT = {
    "a": ("href",), "img": ("src", "alt"), "ol": ("start",), "code": ("class",),
    "td": ("colspan",), "th": ("colspan",),
}  # fmt: skip
_MOST_ATTRIBUTES = 50
_MARKUP = re.compile(r"<(?!https?://)(?=[!/?a-zA-Z])|`|(?<=\])[(\[]")
_MARKUP_IN_LINKS = re.compile(r"<(?!https?://)(?=[!/?a-zA-Z])|`|[\[\]]")
# The converter doubles a backslash in the text, and passes on what no text has.
_BACKSLASH = "\x1a"
_RAISED = str.maketrans("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")
_LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_ORDINAL = re.compile(
    r"(?:st|nd|rd|th|er|ère|re|e|ème|eme|nde?|d|a|o|os?|as?|me|mes|mme|lle|lles|gr|r|ª|º)\Z", re.IGNORECASE
)
_MARKS = {"tm": "™", "sm": "℠", "r": "®", "(r)": "®", "(tm)": "™"}
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
    document = parse(text)
    head = read_head(document, url)
    markdown = _main_markdown(document, url, head.base)
    return PageText(
        markdown=markdown,
        title=head.title,
        description=head.description,
        language=head.language,
        links=head.links,
        canonical=head.canonical,
        refresh=head.refresh,
        nofollow=head.nofollow,
        noindex=head.noindex,
    )


def _main_markdown(document: Document, url: str, base: str) -> str:
    body = document.find("body") or _frameless_body(document)
    if body is None:
        return ""
    region = main_region(body)
    unfold_layout(region)
    _write_formulas(region)
    _plain_signatures(region)
    _plain_code(region)
    _plain_links(region, url, base)
    _plain_inline(region)
    _plain_texts(region)
    _break_endless_lines(region)
    return _convert(_drop_attributes(region))


def _frameless_body(document: Document) -> Element | None:
    """What a page of frames has for readers without them."""
    for element in document.iter_elements("noframes"):
        return parse(element.text).find("body")
    return None


def _write_formulas(region: Element) -> None:
    """Markdown has no raised text, but 10⁶ is not 106: Unicode's characters, or else the marks of TeX."""
    for formula in list(region.iter_elements("math")):
        source = formula.select_one("annotation[encoding='application/x-tex']")
        if source is not None:
            formula.replace_with(Text(f" {words(source)} "))
    for raised in list(region.iter_elements(["msup", "msub"])):
        parts = [part for part in raised if isinstance(part, Element)]
        if len(parts) == 2:
            parts[1].replace_with(Element(raised.tag.removeprefix("m"), None, [Text(words(parts[1]))]))
    for element in reversed(list(region.iter_elements(["sup", "sub"]))):
        if element.find("img") is None:
            element.replace_with(Text(_raised(element) if element.tag == "sup" else _lowered(words(element))))
    for ruby in list(region.iter_elements("ruby")):
        _write_ruby(ruby)


def _raised(element: Element) -> str:
    text = words(element)
    before = _last_of(element)
    if text.lower() in _MARKS and not before.isdigit():
        return _MARKS[text.lower()]
    if _ORDINAL.match(text) and (before.isdigit() or before in "IVXM"):
        return text
    raised = text.translate(_RAISED)
    if len(text) <= 8 and all(character not in text for character in raised):
        return raised
    return f"^{text}" if text.isalnum() else f"^({text})" if text else ""


def _last_of(element: Element) -> str:
    before = element.previous_sibling
    return before.text.rstrip()[-1:] or " " if before is not None else " "


def _lowered(text: str) -> str:
    lowered = text.translate(_LOWERED)
    if len(text) <= 8 and all(character not in text for character in lowered):
        return lowered
    return f"_{text}" if text.isalnum() else f"_({text})" if text else ""


def _write_ruby(ruby: Element) -> None:
    """The readings after the whole word, so that the word stays one."""
    readings = [words(reading) for reading in ruby.iter_elements("rt")]
    for aside in list(ruby.iter_elements(["rt", "rp", "rtc"])):
        aside.decompose()
    if any(readings):
        ruby.append(Text(f"({''.join(readings)})"))


def _plain_signatures(region: Element) -> None:
    """Sphinx sets every parameter of a signature in markup of its own: one piece of code reads better."""
    for term in list(region.select("dt.sig")):
        for anchor in list(term.iter_elements("a")):
            if words(anchor) in _PERMALINKS or _PERMALINK_NAMES.search(anchor.attr("class") or ""):
                anchor.decompose()
        for anchor in list(term.select(".viewcode-link")):
            anchor.decompose()
        code = Element("code", None, [Text(words(term))])
        term.clear()
        term.append(code)


def _plain_code(region: Element) -> None:
    """Code is text: links, colours and numbered lines within it are none of it."""
    for code in list(region.iter_elements(["listing", "xmp", "plaintext"])):
        code.tag = "pre"
    for pre in list(region.iter_elements("pre")):
        if is_within(pre, "pre"):
            continue
        language = _language_of_code(pre)
        for line_break in list(pre.iter_elements("br")):
            line_break.replace_with(Text("\n"))
        for line in list(pre.iter_elements(_BLOCK_IN_CODE)):
            before = line.previous_sibling
            if before is not None and before.text and not before.text.endswith("\n"):
                line.insert_before(Text("\n"))
            if not line.text.endswith("\n"):
                line.append(Text("\n"))
        code = Element("code", {"class": f"language-{language}"} if language else None, [Text(pre.text)])
        pre.clear()
        pre.append(code)
    for code in list(region.iter_elements(["code", "kbd", "samp", "tt"])):
        if (
            next((child for child in code.iter_elements() if child.tag not in ("br", "img")), None)
            is not None
        ):
            code.set_text(code.text)


def _language_of_code(pre: Element) -> str | None:
    inner = pre.find("code")
    outer = pre.parent
    wrapper = outer.parent if isinstance(outer, Element) else None
    for element in (inner, pre, outer, wrapper):
        if not isinstance(element, Element) or element.tag in ("body", "main", "article", "section"):
            continue
        said = element.attr("data-lang") or element.attr("data-language")
        found = said or next(iter(_LANGUAGE_CLASS.findall(element.attr("class") or "")), None)
        if found and found not in _NO_LANGUAGE:
            return found if re.fullmatch(r"[\w+#.-]{1,20}", found) else None
    return None


def _plain_links(region: Element, url: str, base: str) -> None:
    """Links to elsewhere are made absolute; permalink marks go; links within the page become their text."""
    page = url.partition("#")[0]
    target_of = cache(partial(join, base))
    for anchor in list(region.iter_elements("a")):
        href = anchor.attr("href") or "#"
        target = None if href.startswith("#") else target_of(href)
        text = words(anchor).lower()
        inward = target is None or target.partition("#")[0] == page
        marked = len(text) < 3 and _PERMALINK_NAMES.search(anchor.attr("class") or "") is not None
        marks = (text in _PERMALINKS or marked) and anchor.find("img") is None
        if marks or (inward and _SKIPS.fullmatch(text)):
            anchor.decompose()
        elif inward or target is None:
            anchor.unwrap()
        else:
            anchor.attrs["href"] = clean(target)


def _plain_inline(region: Element) -> None:
    for element in list(region.iter_elements(_PLAIN)):
        element.unwrap()
    for summary in list(region.select("summary:has(h1, h2, h3, h4, h5, h6)")):
        summary.tag = "div"


def _plain_texts(region: Element) -> None:
    """What the page shows as text stays text to whoever reads the Markdown: tags, backticks, brackets."""
    for image in region.iter_elements("img"):
        if alternative := image.attr("alt"):
            image.attrs["alt"] = _MARKUP_IN_LINKS.sub(rf"{_BACKSLASH}\g<0>", clean(alternative))
    for node in list(region.descendants):
        if isinstance(node, Element):
            continue
        if not isinstance(node, Text):
            node.decompose()
            continue
        data = clean(node.data)
        if _MARKUP_IN_LINKS.search(data) and not _is_within_code(node):
            markup = _MARKUP_IN_LINKS if _is_linked(node) else _MARKUP
            data = markup.sub(rf"{_BACKSLASH}\g<0>", data)
        if data != node.data:
            node.data = data


def _is_within_code(text: Text) -> bool:
    return text.parent is not None and text.parent.closest(_CODE) is not None


def _is_linked(text: Text) -> bool:
    return text.parent is not None and text.parent.closest("a") is not None


def _break_endless_lines(region: Element) -> None:
    """The converter looks back to the start of the line at every inline element."""
    on_this_line = 0
    for element in list(region.iter_elements()):
        after = element.next_sibling
        tail = after.data if isinstance(after, Text) else ""
        on_this_line = on_this_line + 1 if element.tag in _INLINE and "\n" not in tail else 0
        if on_this_line <= _MOST_INLINE:
            continue
        space = _SPACE_WITHIN.search(tail)
        if space and isinstance(after, Text):
            after.data = f"{tail[: space.start()]}\n{tail[space.end() :]}"
        elif on_this_line > 10 * _MOST_INLINE:
            element.insert_after(Element("br"))
        else:
            continue
        on_this_line = 0


def _drop_attributes(region: Element) -> Element:
    """None but those that Markdown has a place for: pages have thousands, which every reader compares."""
    root = region
    for element in list(region.iter_elements(include_self=True)):
        kept = _KEPT.get(element.tag, ())
        if len(element.attrs) > _MOST_ATTRIBUTES:
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


def _convert(region: Element) -> str:
    html = region.html
    try:
        markdown = convert(html, _CONVERSION).content or ""
    except ConversionError as error:
        log.warning("page_kept_as_plain_text", reason=str(error))
        markdown = "\n\n".join(line for text in region.strings if (line := text.strip()))
    # The converter escapes a bracket that has no other a second time.
    once = markdown.replace(f"{_BACKSLASH}\\", _BACKSLASH)
    return once.replace("\xa0", " ").replace(_BACKSLASH, "\\").strip()
