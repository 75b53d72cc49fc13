"""Tables: Markdown has only those of data.

A layout table becomes the blocks it was drawn around, a table of data one whose rows each say all that they
mean.
"""

from turbohtml import Element, Node, Text

from crawlscope.crawler.reading.tree import is_within, words

_NEVER_IN_DATA = "hr, h1, h2, h3, h4, h5, h6, dl, form, article, section, p + p + p"
_NEVER_IN_LINE = "p, div, ul, ol, pre, br"
_MAX_ROWS_SPANNED = 1000
_MAX_REPETITIONS_PER_CELL = 4
_MAX_REPEATED_CHARACTERS = 200
_MAX_REPEATED_COLUMNS = 20
_MAX_TITLE_ROWS = 3
_TABLE_ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "table": ("table", ()),
    "grid": ("table", ()),
    "rowgroup": ("tbody", ("table", "grid")),
    "row": ("tr", ("rowgroup", "table", "grid")),
    **dict.fromkeys(["columnheader", "rowheader"], ("th", ("row",))),
    **dict.fromkeys(["cell", "gridcell"], ("td", ("row",))),
}
"""The HTML element of each role, and the roles of its parents."""


def plain_tables(body: Element) -> None:
    tables = list(body.iter_elements("table"))
    depths: dict[Node | None, int] = {body: 0}  # tables around each element, with itself
    for element in body.iter_elements() if tables else ():
        depths[element] = depths[element.parent] + (element.tag == "table")
    layout = [table for table in tables if _is_layout(table)]
    for table in layout:
        _unfold(table, depths[table])
    for table in tables:
        if table.tag == "table":
            _lift_title(table)
            _repeat_spanning_cells(table)


def mark_tables(body: Element) -> None:
    """Tables that are drawn with style sheets, if each part is within its right parent."""
    for table in list(body.select("div[role=table], div[role=grid]")):
        if is_within(table, "[role=table]", "[role=grid]"):
            continue
        parts = list(table.select("[role]"))
        roles = [part.attr("role") or "" for part in parts]
        outers = [part.parent for part in parts]
        if all(
            isinstance(outer, Element) and outer.attr("role") in _TABLE_ROLES.get(role, ("", ()))[1]
            for role, outer in zip(roles, outers, strict=True)
        ):
            table.tag = "table"
            for part, role in zip(parts, roles, strict=True):
                part.tag = _TABLE_ROLES[role][0]


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
    # Whether a row reads as data; one that is alone must be short and each cell of one line.
    never = _NEVER_IN_DATA if len(several) > 1 else f"{_NEVER_IN_DATA}, {_NEVER_IN_LINE}"
    data = sum(
        all(
            cell.select_one(never) is None and (len(several) > 1 or len(cell.text) < _MAX_REPEATED_CHARACTERS)
            for cell in cells
        )
        for cells in several
    )
    return data * 2 <= len(several)


def _title_cell(rows: list[Element]) -> Element | None:
    """The only cell of a first row, if it spans the columns below."""
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
    for at, row in enumerate(rows[:_MAX_TITLE_ROWS]):
        title, cells, below = _title_cell(rows[at:]), _cells(row), rows[at + 1 : at + 3]
        if title is None and len(cells) == 1 and _number(cells[0].attr("rowspan")) == 1 and len(below) == 2:
            # Nobody said how far it spans, but the rows below have more.
            title = cells[0] if all(len(_cells(each)) > 1 for each in below) else None
        if title is None or not words(title):
            return
        heading = title.select_one("h1, h2, h3, h4, h5, h6")
        name = Element("strong", None, [Text(words(title))])
        table.insert_before(Element("p", None, [name]) if heading is None else heading.extract())
        row.decompose()


def _repeat_spanning_cells(table: Element) -> None:
    """A cell over several rows is said in each of them, so that each row says what it is about."""
    rows = _rows(table)
    budget = _MAX_REPETITIONS_PER_CELL * sum(len(_cells(row)) for row in rows)
    open_cells: dict[int, tuple[str, int]] = {}
    for row in rows:
        column = 0
        for cell in [*_cells(row), None]:
            while column in open_cells and budget > 0:
                text, left = open_cells.pop(column)
                if left > 1:
                    open_cells[column] = (text, left - 1)
                repeated = Element("td", None, [Text(text)])
                if cell is None:
                    row.append(repeated)
                else:
                    cell.insert_before(repeated)
                budget -= 1
                column += 1
            if cell is None:
                break
            spanned = _number(cell.attr("rowspan"))
            width = _number(cell.attr("colspan"))
            if spanned > 1 and width <= _MAX_REPEATED_COLUMNS:
                text = words(cell)
                said = [text if len(text) <= _MAX_REPEATED_CHARACTERS else "", *[""] * (width - 1)]
                open_cells.update({column + at: (each, spanned - 1) for at, each in enumerate(said)})
            column += width


def _number(said: str | None) -> int:
    return min(int(said), _MAX_ROWS_SPANNED) if said and said.strip().isdecimal() and len(said) < 9 else 1
