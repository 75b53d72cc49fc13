"""The metadata of a page: its names, its language, its links, and its directives for robots."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

from turbohtml import Document

from crawlscope.crawler.fetch import ROBOT
from crawlscope.crawler.links import absolute
from crawlscope.crawler.reading.tree import clean, parse, words

_LINKING = {"a": "href", "area": "href", "frame": "src", "iframe": "src", "embed": "src", "object": "data"}
_REFRESH = re.compile(
    r"""\s*+[\d.]++[\s;,]\s*+[;,]?\s*+(?:url\s*+=\s*+|(?!url\s*+=))(?:"([^"]++)|'([^']++)|([^\s"'].*))""",
    re.IGNORECASE | re.DOTALL,
)
_LANGUAGE = re.compile(r"(?!(?:und|mul|mis|zxx)\b)[a-z]{2,3}(?:[-_][a-z0-9]{1,8})*", re.IGNORECASE | re.ASCII)
_SCOPED = re.compile(r"\s*([\w-]+)\s*:(.*)", re.DOTALL)
_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_ROBOTS = ("robots", ROBOT.lower())


@dataclass(frozen=True)
class Head:
    base: str
    """The base of the page's relative links."""
    title: str | None
    description: str | None
    language: str | None
    """A BCP 47 tag, as the page declares it."""
    links: list[str]
    canonical: str | None
    refresh: str | None
    nofollow: bool
    noindex: bool


def read_head(document: Document, url: str) -> Head:
    base = next(
        (
            absolute(element.attr("href") or "", url) or url
            for element in document.iter_elements("base")
            if element.attr("href") is not None
        ),
        url,
    )
    titles = (title for title in document.iter_elements("title") if title.namespace.value == "html")
    canonicals = (
        absolute(link.attr("href") or "", base)
        for link in document.iter_elements("link")
        if "canonical" in (link.attr("rel") or "").lower().split() and (link.attr("href") or "").strip()
    )
    metas = _metas(document)
    refreshes = (refresh_target(content, base) for name, content in metas if name == "refresh")
    asked = {
        word for name, content in metas if name in _ROBOTS for word in re.split(r"[\s,;]+", content.lower())
    }
    nofollow = not asked.isdisjoint({"nofollow", "none"})
    hrefs = dict.fromkeys(href.partition("#")[0] for href in _hrefs(document))
    links = (absolute(href, base) for href in hrefs if href.strip())
    return Head(
        base=base,
        title=next(filter(None, map(words, titles)), None) or _said(metas, "og:title"),
        description=_said(metas, "description") or _said(metas, "og:description"),
        language=_language(document, metas),
        links=[] if nofollow else list(dict.fromkeys(filter(None, links))),
        canonical=next(canonicals, None),
        refresh=next(filter(None, refreshes), None),
        nofollow=nofollow,
        noindex=not asked.isdisjoint({"noindex", "none"}),
    )


def join(base: str, href: str) -> str | None:
    """Absolute; None if it is no address of the web."""
    try:
        joined = urljoin(base, clean(href).strip())
    except ValueError:
        return None
    return joined if joined[:8].lower().startswith(("http://", "https://")) else None


def _metas(document: Document) -> list[tuple[str, str]]:
    """Names in lower case: authors write them in any."""
    return [
        (name, meta.attr("content") or "")
        for meta in document.iter_elements("meta")
        for naming in ("name", "http-equiv", "property", "itemprop")
        if (name := (meta.attr(naming) or "").strip().lower())
    ]


def _said(metas: list[tuple[str, str]], *names: str) -> str | None:
    for wanted in names:
        for name, content in metas:
            text = " ".join(clean(content).split())
            if name == wanted and text:
                return text
    return None


def _language(document: Document, metas: list[tuple[str, str]]) -> str | None:
    """The first that can be one: templates leave `lang="{{ page.lang }}"` behind."""
    outer = list(document.iter_elements(["html", "body"]))
    said = [element.attr(name) for element in outer for name in ("lang", "xml:lang")]
    said += [_said(metas, "content-language", "language", "dc.language", "dcterms.language", "og:locale")]
    for tags in filter(None, said):
        tag = re.split(r"[,;.]", tags)[0].strip()
        if _LANGUAGE.fullmatch(tag):
            return tag.replace("_", "-")
    return None


def refresh_target(content: str, base: str) -> str | None:
    """The target of a refresh, from the text of the header or of the meta element."""
    found = _REFRESH.match(content)
    return absolute(next(filter(None, found.groups())), base) if found else None


def robots_directives(header: str) -> Iterator[str]:
    """The directives of `X-Robots-Tag` for every robot or for this one, in lower case."""
    for line in header.lower().splitlines():
        scoped = _SCOPED.match(line)
        if scoped and scoped[1] not in _WITH_VALUES:
            if scoped[1] != ROBOT.lower():
                continue
            line = scoped[2]  # noqa: PLW2901
        yield from (word.strip() for word in line.split(","))


def _hrefs(document: Document) -> Iterator[str]:
    for element in document.iter_elements([*_LINKING, "noframes"]):
        if element.tag == "noframes":
            # Readers without frames are given a page of its own, which the parser leaves as text.
            yield from _hrefs(parse(element.text))
        elif "nofollow" not in (element.attr("rel") or "").lower().split():
            yield element.attr(_LINKING[element.tag]) or element.attr("xlink:href") or ""
