"""Pages from before style sheets: tables that hold the layout, and text kept in shape with `&nbsp;`.

Markdown has only tables of data. A layout table becomes the blocks it was drawn around, the text of pydoc's
docstrings becomes paragraphs and code.
"""

import re
from itertools import groupby
from textwrap import dedent

from lxml.html import HtmlElement, builder

_HARD_SPACE = "\xa0"
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SHAPED = re.compile(r"^(?:[ \t]|>>>|\.\.\. |\+[-=]{2}|\|)", re.MULTILINE)


def clean(text: str) -> str:
    """Without the characters that lxml reads but refuses to write."""
    return _UNWRITABLE.sub("", text)


def unfold_layout(body: HtmlElement) -> None:
    _docstrings(body)
    depths: dict[HtmlElement, int] = {}
    for table in list(body.iter("table")):
        outer = next(table.iterancestors("table"), None)
        depths[table] = depths.get(outer, 0) + 1
    layout = [table for table in depths if _is_layout(table)]
    for table in layout:
        _unfold(table, depths[table])


def _rows(table: HtmlElement) -> list[HtmlElement]:
    found: list[HtmlElement] = table.xpath("./tr | ./thead/tr | ./tbody/tr | ./tfoot/tr")
    return found


def _is_layout(table: HtmlElement) -> bool:
    if table.get("role") in ("presentation", "none"):
        return True
    rows = _rows(table)
    if table.find("caption") is not None or any(row.find("th") is not None for row in rows):
        return False
    if next(table.iterdescendants("table", "dl", "hr", "h1", "h2", "h3", "h4"), None) is not None:
        return True
    return len(rows) < 2 or all(len(row) < 2 for row in rows) or _heading_cell(rows) is not None


def _heading_cell(rows: list[HtmlElement]) -> HtmlElement | None:
    """The only cell of a first row, where it spans the columns below."""
    if len(rows) > 1 and len(rows[0]) == 1 and rows[0][0].get("colspan", "1") != "1":
        return rows[0][0]
    return None


def _unfold(table: HtmlElement, depth: int) -> None:
    rows = _rows(table)
    heading = _heading_cell(rows)
    for row in rows:
        for cell in list(row):
            if not _text(cell) and cell.find(".//img") is None:
                cell.drop_tree()
            elif cell is heading:
                _make_heading(cell, depth + 1)
            elif cell.get("class") == "title":
                _make_heading(cell, 1)
            else:
                cell.tag = "div"
        row.tag = "div"
    for part in table.findall("*"):
        part.tag = "div"
    table.tag = "div"


def _make_heading(cell: HtmlElement, level: int) -> None:
    words = _text(cell)
    cell.clear(keep_tail=True)
    cell.tag = f"h{min(level, 6)}"
    cell.text = words


def _text(element: HtmlElement) -> str:
    return " ".join(str(element.text_content()).split())


def _docstrings(body: HtmlElement) -> None:
    for span in body.xpath('.//span[@class="code"]'):
        text = str(span.text_content()).replace(_HARD_SPACE, " ")
        parts = [part for part in _BLANK_LINES.split(dedent(text.strip("\n"))) if part.strip()]
        span.clear(keep_tail=True)
        span.tag = "div"
        for shaped, group in groupby(parts, key=_is_shaped):
            together = list(group)
            span.extend(
                [builder.PRE(dedent("\n\n".join(together)))]
                if shaped
                else [builder.P(part) for part in together]
            )
        parent = span.getparent()
        if parent is not None and parent.tag == "p":
            parent.tag = "div"


def _is_shaped(text: str) -> bool:
    """Whether its line breaks and spaces carry meaning: code, sessions, drawn tables, indented lists."""
    return _SHAPED.search(text) is not None
