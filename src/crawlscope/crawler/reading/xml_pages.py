"""XML that is no web page: sitemaps and feeds, which list pages, and any other XML with text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from html.entities import html5

from lxml import etree

from crawlscope.crawler.links import normalise

_PROLOGUE = re.compile(
    r"(?:\s+|<\?.*?\?>|<!--.*?-->|<!doctype\b[^\[>]*(?:\[.*?\]\s*)?>)*", re.IGNORECASE | re.DOTALL
)
_ROOT = re.compile(r"<([\w:.-]+)")
_CDATA_OR_AMPERSAND = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|&(?!#\d+;|#[xX][0-9A-Fa-f]+;)(?P<entity>[A-Za-z]\w*+;)?", re.DOTALL
)
_XML_ENTITIES = frozenset({"amp;", "lt;", "gt;", "quot;", "apos;"})
_PROLOGUE_WITHIN = 16_384


@dataclass(frozen=True)
class Listing:
    """Normalised URLs, in the order of the file."""

    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def root_name(text: str) -> str:
    """The name of the first element, in lower case and without a prefix; empty if there is none."""
    start = text[:_PROLOGUE_WITHIN]
    prologue = _PROLOGUE.match(start)
    root = _ROOT.match(start, prologue.end() if prologue else 0)
    return root[1].lower().rpartition(":")[2] if root else ""


def parse_xml(text: str) -> etree._Element | None:
    """As much of it as can be read; no entities of its own, nothing from elsewhere."""
    parser = etree.XMLParser(
        encoding="utf-8",
        recover=True,
        resolve_entities=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        escaped = _CDATA_OR_AMPERSAND.sub(_readable, text.strip())
        return etree.fromstring(escaped.encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _readable(found: re.Match[str]) -> str:
    """Entities of HTML, which XML has no names for, and ampersands that nobody escaped."""
    entity = found["entity"]
    if found[0].startswith("<") or entity in _XML_ENTITIES:
        return found[0]
    return escape(html5[entity]) if entity in html5 else "&amp;" + found[0][1:]


def listing_of(text: str, url: str) -> Listing:
    """The entries of a sitemap (XML or text), an index of sitemaps, or a feed (RSS, Atom); nothing for any
    other text."""
    if not text.lstrip().startswith("<"):
        lines = (line.strip() for line in text.splitlines())
        return Listing(pages=_normal((line for line in lines if line.lower().startswith("http")), url))
    root = parse_xml(text)
    if root is None:
        return Listing()
    match _name(root):
        case "urlset" | "sitemapindex":
            return Listing(_normal(_locations(root, "url"), url), _normal(_locations(root, "sitemap"), url))
        case "rss" | "rdf" | "feed":
            # RSS has a link as text, Atom as `href`, several for one entry if they differ in `rel`.
            links = (
                link.get("href") or link.text or ""
                for link in root.iter("{*}link")
                if (parent := link.getparent()) is not None
                and _name(parent) in ("item", "entry")
                and link.get("rel", "alternate") == "alternate"
            )
            return Listing(pages=_normal(filter(None, links), url))
        case _:
            return Listing()


def texts_of(root: etree._Element) -> list[str]:
    """The pieces of text in it, but for the addresses of links."""
    pieces: list[str] = []
    for element in root.iter(etree.Element):
        if element.text and _name(element) not in ("link", "loc"):
            pieces.append(element.text)
        if element.tail:
            pieces.append(element.tail)
    return [piece for each in pieces if (piece := " ".join(str(each).split()))]


def title_of(root: etree._Element) -> str | None:
    """The first title in it: a feed's own comes before those of its entries."""
    for element in root.iter("{*}title"):
        if words := " ".join("".join(map(str, element.itertext())).split()):
            return words
    return None


def _name(element: etree._Element) -> str:
    """In lower case, without its namespace, or the prefix of one that was never declared."""
    return str(element.tag).rpartition("}")[2].rpartition(":")[2].lower()


def _locations(root: etree._Element, entry: str) -> Iterator[str]:
    """Without those of images and videos, which are further down."""
    for element in root.iter(etree.Element):
        parent = element.getparent()
        if _name(element) == "loc" and parent is not None and _name(parent) == entry and element.text:
            yield element.text


def _normal(links: Iterator[str], base: str) -> list[str]:
    found = (normalise(link.strip(), base) for link in links)
    return list(dict.fromkeys(url for url in found if url))
