"""Markup from before style sheets: headings that nobody ended, and text kept in shape with `&nbsp;`."""

import re
from itertools import chain, groupby, islice
from textwrap import dedent

from turbohtml import Element, Text

from crawlscope.crawler.reading.blocks import HEADINGS
from crawlscope.crawler.reading.tree import words

_HARD_SPACE = "\xa0"
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_SHAPED = re.compile(r"^(?:[ \t]|>>>|\.\.\. |\+[-=]{2}|\|)", re.MULTILINE)
_NEVER_IN_HEADINGS = frozenset({"p", "table", "ul", "ol", "dl", "pre", "blockquote", "section", "article"})


def mark_docstrings(body: Element) -> None:
    """The text of pydoc's docstrings becomes paragraphs and code."""
    for span in list(body.select('span[class="code"]')):
        parent = span.parent
        beside = chain(islice(span.previous_siblings, 3), islice(span.next_siblings, 3))
        if not isinstance(parent, Element) or any(map(words, beside)):
            span.tag = "code"
            continue
        text = span.text.replace(_HARD_SPACE, " ")
        parts = [part for part in _BLANK_LINES.split(dedent(text.strip("\n"))) if part.strip()]
        span.clear()
        span.tag = "div"
        # Whether line breaks and spaces carry meaning: code, sessions, drawn tables, indented lists.
        for shaped, group in groupby(parts, key=lambda part: _SHAPED.search(part) is not None):
            together = list(group)
            if shaped:
                span.append(Element("pre", None, [Text(dedent("\n\n".join(together)))]))
            else:
                span.extend([Element("p", None, [Text(part)]) for part in together])
        if parent.tag == "p":
            parent.tag = "div"


def end_headings(body: Element) -> None:
    """If the author forgot to close a heading, the rest of the page is within it."""
    for heading in list(body.iter_elements([*HEADINGS])):
        children = list(heading)
        for at, child in enumerate(children):
            if isinstance(child, Element) and child.tag in _NEVER_IN_HEADINGS:
                if any(words(before) for before in children[:at]):
                    heading.insert_after(*[each.extract() for each in children[at:]])
                break
