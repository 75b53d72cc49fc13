"""HTML as browsers read it: the tree that the WHATWG standard builds from any text."""

import re

import psutil
from turbohtml import Document, Element, IncrementalParser, Node, ShadowRoot

Parent = Element | Document | ShadowRoot

_PIECE = 1 << 14
_LEAST_MEMORY = 256 * 1024 * 1024
_MEMORY_OF_A_CHARACTER = 60
_FORMATTING = re.compile(
    r"</?(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)\b[^<>]*>", re.IGNORECASE
)
_ANY_TAG = re.compile(r"<[^<>]*>")
_UNWRITABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse(text: str) -> Document:
    """Never raises. Takes time and memory in proportion to the text.

    The standard opens each unclosed `<b id=…>` anew in every paragraph below: half a megabyte can become
    twenty million elements. Such a page is read without its formatting.
    """
    return (
        _parse_within_bounds(text)
        or _parse_within_bounds(_FORMATTING.sub("", text))
        or _parse_within_bounds(_ANY_TAG.sub(" ", text))
        or IncrementalParser().close()
    )


def _parse_within_bounds(text: str) -> Document | None:
    process = psutil.Process()
    most = process.memory_info().rss + _LEAST_MEMORY + _MEMORY_OF_A_CHARACTER * len(text)
    parser = IncrementalParser(positions=False)
    for start in range(0, len(text), _PIECE):
        parser.feed(text[start : start + _PIECE])
        if process.memory_info().rss > most:
            return None
    document = parser.close()
    if "shadowroot" in text:
        _unfold_shadows(document)
    return document


def _unfold_shadows(document: Document) -> None:
    """What a component declares as its inside is what a browser shows, before what it was given."""
    for host in list(document.iter_elements()):
        if host.shadow_root is not None:
            _unfold_shadows_within(host)


def _unfold_shadows_within(host: Element) -> None:
    root = host.shadow_root
    assert root is not None
    for at, node in enumerate(list(root)):
        host.insert(at, node.extract())


def clean(text: str) -> str:
    """Without the characters that no text may hold: controls, surrogates and the like."""
    return _UNWRITABLE.sub("", text)


def words(node: Node) -> str:
    return " ".join(clean(node.text).split())


def is_within(element: Element, *tags: str) -> bool:
    outer = element.parent
    return outer is not None and outer.closest(",".join(tags)) is not None
