"""HTML as browsers read it: the tree that the WHATWG standard builds from any text."""

import re

import psutil
from turbohtml import Document, Element, IncrementalParser, Node, ShadowRoot

Parent = Element | Document | ShadowRoot

_PIECE_CHARACTERS = 1 << 14
_MIN_MEMORY_BYTES = 256 * 1024 * 1024
_BYTES_PER_CHARACTER = 60
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
    max_bytes = process.memory_info().rss + _MIN_MEMORY_BYTES + _BYTES_PER_CHARACTER * len(text)
    parser = IncrementalParser(positions=False)
    for start in range(0, len(text), _PIECE_CHARACTERS):
        parser.feed(text[start : start + _PIECE_CHARACTERS])
        if process.memory_info().rss > max_bytes:
            return None
    document = parser.close()
    if "shadowroot" in text:
        # A browser shows the declared inside of a component, before the content that the component was given.
        for host in list(document.iter_elements()):
            if host.shadow_root is not None:
                for at, node in enumerate(list(host.shadow_root)):
                    host.insert(at, node.extract())
    return document


def clean(text: str) -> str:
    """Without the characters that no text may hold: controls, surrogates and the like."""
    return _UNWRITABLE.sub("", text)


def words(node: Node) -> str:
    return " ".join(clean(node.text).split())


def is_within(element: Element, *tags: str) -> bool:
    outer = element.parent
    return outer is not None and outer.closest(",".join(tags)) is not None
