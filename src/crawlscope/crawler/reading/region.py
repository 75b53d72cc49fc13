"""Finds the part of a page that is the page's own, without the site's furniture."""

import re
from itertools import chain

from turbohtml import Element

from crawlscope.crawler.reading.blocks import HEADINGS, Blocks, Weight, names_of
from crawlscope.crawler.reading.furniture import LONG_TEXT, NAVIGATION, NOTES, is_furniture
from crawlscope.crawler.reading.tree import words
from crawlscope.crawler.reading.unread import drop_consent, drop_controls, drop_marks, drop_never_text

_CONTENTS = re.compile(
    r"^contents$|(?:^|[-_])(?:toc|tocs|toctree\w*|mini[-_]?toc|local[-_]?toc|page[-_]?toc|on[-_]?this[-_]?page"
    r"|table[-_]?of[-_]?contents|outline|scrollspy)(?:$|[-_\d])"
)


def main_region(body: Element) -> Element:
    """Drops the furniture from the page and returns the part of it that is the page's own."""
    controlled = {
        name
        for element in body.select("[aria-controls], [data-target], [data-bs-target], [href^='#']")
        for attribute in ("aria-controls", "data-target", "data-bs-target", "href")
        for name in (element.attr(attribute) or "").replace("#", "").split()
    }
    drop_consent(body)
    drop_never_text(body)
    drop_controls(body)
    drop_marks(body)
    blocks = Blocks(body)
    for at in blocks.within(0):
        if is_furniture(blocks, at, controlled):
            only_title = blocks.weights[at].h1s == 1 and blocks.weights[0].h1s == 1
            blocks.drop(at, but=blocks.elements[at].find("h1") if only_title else None)
    blocks.settle()
    region = _named_region(blocks)
    _drop_contents(blocks, region)
    blocks.settle()
    _drop_link_lists_beside(blocks, region)
    main = blocks.elements[region]
    if main is not body:
        _include_heading_and_footnotes(body, main)
    return main


def _named_region(blocks: Blocks) -> int:
    """The part that the page itself marks as its main part, unless much of its text is elsewhere."""
    named = [at for at in blocks.within(0) if _is_main(blocks.elements[at])]
    mains = [at for at in named if "hidden" not in blocks.elements[at].attrs] or named
    heaviest = max(mains, key=lambda at: blocks.weights[at].text, default=0)
    if any(
        at >= blocks.ends[heaviest] or blocks.ends[at] <= heaviest for at in mains if blocks.weights[at].text
    ):
        return 0
    return heaviest if blocks.weights[heaviest].text * 4 > blocks.weights[0].text else 0


def _is_main(element: Element) -> bool:
    return element.tag == "main" or (element.attr("role") or "").strip().lower() == "main"


def _drop_contents(blocks: Blocks, region: int) -> None:
    """Lists of the page's own headings; and of pages below it, unless the page is little else."""
    whole = blocks.weights[region]
    named = blocks.elements[region].iter_elements([*HEADINGS, "dt", "caption", "b", "strong"])
    headings = {words(heading).lower() for heading in named}
    kept = 0
    for at in blocks.within(region):
        element, weight = blocks.elements[at], blocks.weights[at]
        if at < kept or weight.links < 2 or not weight.is_mostly_links or weight.h1s or _is_main(element):
            continue
        if any(map(_CONTENTS.search, names_of(element))):
            if weight.elsewhere == 0 or whole.running - weight.running > 3 * weight.text:
                blocks.drop(at)
            else:
                kept = blocks.ends[at]
        elif _repeats(element, weight, headings):
            blocks.drop(at)


def _repeats(element: Element, weight: Weight, headings: set[str]) -> bool:
    """Whether it is a list of links to headings of the page, in their words."""
    if element.tag not in ("ul", "ol", "dl", "table") or weight.elsewhere or weight.links < 4:
        return False
    if weight.linked * 10 < weight.text * 9:
        return False
    links = [words(link).lower() for link in element.iter_elements("a")]
    return sum(link in headings for link in links) * 10 >= len(links) * 7


def _drop_link_lists_beside(blocks: Blocks, region: int) -> None:
    """Navigation that nothing names: blocks of links beside the one block that holds the page's text."""
    whole = blocks.weights[region].running
    at = region
    while whole >= LONG_TEXT:
        children = blocks.directly_within(at)
        heaviest = max(children, key=lambda child: blocks.weights[child].running, default=None)
        if heaviest is None or blocks.weights[heaviest].running * 10 < whole * 8:
            return
        before: Element | None = None
        for child in children:
            element, weight = blocks.elements[child], blocks.weights[child]
            is_table = element.tag == "table" and len(element.find_all("tr", limit=2)) > 1
            listed = (weight.is_list_of_links and not is_table) or (child < heaviest and weight.is_sidebar)
            announced = before is not None and (before.tag in HEADINGS or words(before).endswith((":", "：")))
            if listed and child != heaviest and not announced:
                blocks.drop(child)
            before = element
        at = heaviest


def _include_heading_and_footnotes(body: Element, main: Element) -> None:
    """Moves the only heading and the footnotes of the page into its main part."""
    outside = []
    for heading in body.iter_elements("h1"):
        outer = [heading, *(element for element in heading.ancestors if isinstance(element, Element))]
        names = chain(*map(names_of, outer))
        # Bars with menus have headings of the site.
        if main not in outer and heading not in main.ancestors and words(heading):
            outside += [] if any(map(NAVIGATION.search, names)) else [heading]
    if len(outside) == 1 and main.find("h1") is None:
        main.insert(0, outside[0].extract())
    for notes in list(body.select(NOTES)):
        if main not in notes.ancestors and notes not in main.ancestors:
            main.append(notes.extract())
