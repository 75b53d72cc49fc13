"""Reads the documentation as its readers see it: sections, tables, code blocks, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]

_FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Section:
    title: str
    text: str

    @property
    def names(self) -> list[str]:
        """The code in the title."""
        return _CODE.findall(self.title)

    def blocks(self, language: str) -> list[str]:
        return blocks(self.text, language)

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of each row of the tables whose first column has this heading."""
        return [row for table in _tables(self.text) if table[0][0] == heading for row in table[2:]]

    def first_names(self, heading: str) -> list[str]:
        """The code in the first column of those tables."""
        return [name for row in self.rows(heading) for name in _CODE.findall(row[0])]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def sections(text: str, level: int) -> list[Section]:
    """Each from its heading to the next one of the same or a higher level."""
    found, title, lines = [], None, list[str]()
    for line, is_heading in _lines(text):
        depth = len(line) - len(line.lstrip("#")) if is_heading else 0
        if 0 < depth <= level:
            if title is not None:
                found.append(Section(title, "\n".join(lines)))
            title, lines = (line.lstrip("# ") if depth == level else None), []
        else:
            lines.append(line)
    if title is not None:
        found.append(Section(title, "\n".join(lines)))
    return found


def blocks(text: str, language: str) -> list[str]:
    return [block["text"] for block in _FENCED.finditer(text + "\n") if block["language"] == language]


def links(text: str) -> list[str]:
    return _LINK.findall(_FENCED.sub("", text + "\n"))


def anchors(text: str) -> set[str]:
    """The anchors that headings get on a forge: lower case, blanks as hyphens, no punctuation."""
    titles = [line.lstrip("# ") for line, is_heading in _lines(text) if is_heading]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code_of(cell: str) -> list[str]:
    return _CODE.findall(cell)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is a heading: a comment in a code block is none."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        yield line, not fenced and re.match(r"#{1,6} ", line) is not None


def _tables(text: str) -> Iterator[list[list[str]]]:
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif table:
            yield table
            table = []
