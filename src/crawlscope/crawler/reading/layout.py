"""Pages from before style sheets: tables that hold the layout, and text kept in shape with `&nbsp;`.

Markdown has only tables of data. A layout table becomes the blocks it was drawn around, a table of data one
whose rows each say all that they mean; the text of pydoc's docstrings becomes paragraphs and code.
"""

import re
from itertools import chain, groupby, islice
from textwrap import dedent

from turbohtml import Element, Text

from crawlscope.crawler.reading.tree import is_within, words

_HARD_SPACE = "\xa0"
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_SHAPED = re.compile(r"^(?:[ \t]|>>>|\.\.\. |\+[-=]{2}|\|)", re.MULTILINE)
_NEVER_IN_DATA = "hr, h1, h2, h3, h4, h5, h6, dl, form, article, section, p + p + p"
_NEVER_IN_HEADINGS = frozenset({"p", "table", "ul", "ol", "dl", "pre", "blockquote", "section", "article"})
_MOST_ROWS_SPANNED = 1000
_MOST_REPEATED = 4
_LONGEST_REPEATED = 200
_WIDEST_REPEATED = 20
_MOST_TITLES = 3
_TABLE_ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "table": ("table", ()),
    "grid": ("table", ()),
    "rowgroup": ("tbody", ("table", "grid")),
    "row": ("tr", ("rowgroup", "table", "grid")),
    **dict.fromkeys(["columnheader", "rowheader"], ("th", ("row",))),
    **dict.fromkeys(["cell", "gridcell"], ("td", ("row",))),
}
"""What a role is in HTML, and the roles of what it stands in."""


def unfold_layout(body: Element) -> None:
    _docstrings(body)
    _end_headings(body)
    _tables_by_role(body)
    tables = list(body.iter_elements("table"))
    depths = {
        table: 1 + sum(isinstance(outer, Element) and outer.tag == "table" for outer in table.ancestors)
        for table in tables
    }
    layout = [table for table in tables if _is_layout(table)]
    for table in layout:
        _unfold(table, depths[table])
    for table in tables:
        if table.tag == "table":
            _lift_title(table)
            _repeat_spanning_cells(table)


def _tables_by_role(body: Element) -> None:
    """Tables that are drawn with style sheets, where every part stands in the right one."""
    for table in list(body.select("div[role=table], div[role=grid]")):
        if is_within(table, "[role=table]", "[role=grid]"):
            continue
        parts = list(table.select("[role]"))
        if all(_stands_right(part) for part in parts):
            for part in [table, *parts]:
                part.tag = _TABLE_ROLES[part.attr("role") or ""][0]


def _stands_right(part: Element) -> bool:
    outer = part.parent
    _, outer_roles = _TABLE_ROLES.get(part.attr("role") or "", ("", ()))
    return isinstance(outer, Element) and outer.attr("role") in outer_roles


def _elements(parent: Element) -> list[Element]:
    return [child for child in parent if isinstance(child, Element)]


def _rows(table: Element) -> list[Element]:
    rows = []
    for part in _elements(table):
        if part.tag == "tr":
            rows.append(part)
        elif part.tag in ("thead", "tbody", "tfoot"):
            rows += [row for row in _elements(part) if row.tag == "tr"]
    return rows


def _cells(row: Element) -> list[Element]:
    return [cell for cell in _elements(row) if cell.tag in ("td", "th")]


def _is_layout(table: Element) -> bool:
    if (table.attr("role") or "").strip().lower() in ("presentation", "none"):
        return True
    rows = _rows(table)
    if any(child.tag == "caption" for child in _elements(table)) or any(
        cell.tag == "th" for row in rows for cell in _cells(row)
    ):
        return False
    if any(inner != table for inner in table.iter_elements("table")):
        return True
    filled = [[cell for cell in _cells(row) if _holds_something(cell)] for row in rows]
    several = [cells for cells in filled if len(cells) > 1]
    data = sum(all(_is_datum(cell, alone=len(several) == 1) for cell in cells) for cells in several)
    return data * 2 <= len(several)


def _is_datum(cell: Element, *, alone: bool) -> bool:
    """Whether a cell reads as a part of its row; in a row that is alone it must be short and of one line."""
    if cell.select_one(_NEVER_IN_DATA) is not None:
        return False
    return not alone or (
        len(cell.text) < _LONGEST_REPEATED and cell.select_one("p, div, ul, ol, pre, br") is None
    )


def _title_cell(rows: list[Element]) -> Element | None:
    """The only cell of a first row, where it spans the columns below."""
    first = _cells(rows[0]) if len(rows) > 1 else []
    return first[0] if len(first) == 1 and (first[0].attr("colspan") or "1").strip() != "1" else None


def _holds_something(cell: Element) -> bool:
    return bool(words(cell)) or cell.find("img") is not None


def _unfold(table: Element, depth: int) -> None:
    rows = _rows(table)
    heading = _title_cell(rows) if rows else None
    for row in rows:
        for cell in _cells(row):
            if not _holds_something(cell):
                cell.decompose()
            elif cell == heading:
                _make_heading(cell, depth + 1)
            elif cell.attr("class") == "title":
                _make_heading(cell, 1)
            else:
                cell.tag = "div"
        row.tag = "div"
    for part in _elements(table):
        part.tag = "div"
    table.tag = "div"


def _make_heading(cell: Element, level: int) -> None:
    cell.set_text(words(cell))
    cell.tag = f"h{min(level, 6)}"


def _lift_title(table: Element) -> None:
    """A first row that is one cell over all columns names the table, not its columns."""
    rows = _rows(table)
    for at, row in enumerate(rows[:_MOST_TITLES]):
        title = _title_cell(rows[at:]) or _short_row(rows[at:])
        if title is None or not words(title):
            return
        heading = title.select_one("h1, h2, h3, h4, h5, h6")
        name = Element("strong", None, [Text(words(title))])
        table.insert_before(Element("p", None, [name]) if heading is None else heading.extract())
        row.decompose()


def _short_row(rows: list[Element]) -> Element | None:
    """The only cell of a first row, where those below have more and nobody said how far it spans."""
    first = _cells(rows[0])
    alone = len(first) == 1 and _number(first[0].attr("rowspan")) == 1
    return first[0] if alone and len(rows) > 2 and all(len(_cells(row)) > 1 for row in rows[1:3]) else None


def _repeat_spanning_cells(table: Element) -> None:
    """A cell over several rows is said in each of them, so that each row says what it is about."""
    rows = _rows(table)
    budget = _MOST_REPEATED * sum(len(_cells(row)) for row in rows)
    open_cells: dict[int, tuple[str, int]] = {}
    for row in rows:
        column = 0
        for cell in [*_cells(row), None]:
            while column in open_cells and budget > 0:
                text, left = open_cells.pop(column)
                if left > 1:
                    open_cells[column] = (text, left - 1)
                _repeat(text, row, cell)
                budget -= 1
                column += 1
            if cell is None:
                break
            spanned = _number(cell.attr("rowspan"))
            width = _number(cell.attr("colspan"))
            if spanned > 1 and width <= _WIDEST_REPEATED:
                text = words(cell)
                said = [text if len(text) <= _LONGEST_REPEATED else "", *[""] * (width - 1)]
                open_cells.update({column + at: (each, spanned - 1) for at, each in enumerate(said)})
            column += width


def _repeat(text: str, row: Element, before: Element | None) -> None:
    cell = Element("td", None, [Text(text)])
    if before is None:
        row.append(cell)
    else:
        before.insert_before(cell)


def _number(said: str | None) -> int:
    return min(int(said), _MOST_ROWS_SPANNED) if said and said.strip().isdecimal() and len(said) < 9 else 1


def _end_headings(body: Element) -> None:
    """Where an author forgot to end one, the page went on within it."""
    for heading in list(body.iter_elements(["h1", "h2", "h3", "h4", "h5", "h6"])):
        children = list(heading)
        for at, child in enumerate(children):
            if isinstance(child, Element) and child.tag in _NEVER_IN_HEADINGS:
                if any(words(before) for before in children[:at]):
                    heading.insert_after(*[each.extract() for each in children[at:]])
                break


def _docstrings(body: Element) -> None:
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
        for shaped, group in groupby(parts, key=_is_shaped):
            together = list(group)
            if shaped:
                span.append(Element("pre", None, [Text(dedent("\n\n".join(together)))]))
            else:
                span.extend([Element("p", None, [Text(part)]) for part in together])
        if parent.tag == "p":
            parent.tag = "div"


def _is_shaped(text: str) -> bool:
    """Whether its line breaks and spaces carry meaning: code, sessions, drawn tables, indented lists."""
    return _SHAPED.search(text) is not None
