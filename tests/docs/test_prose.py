"""Sentences name their subject: no clause without its noun, such as "What it costs" or "Of the median"."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documentation import PAGES, ROOT

CODE = sorted((ROOT / "src").rglob("*.py"))
WITHOUT_NOUN = re.compile(r"(What|Who|Whoever|Whatever|Where|Of)\b(?!.*\?)")
SENTENCE_END = re.compile(r"(?<=[.!?;]) +|\n\s*\n|(?:^|\n)[ \t]*(?:[-*>#|]+ +)+| \| ")


def sentences(text: str) -> list[str]:
    """Without code."""
    prose = re.sub(r"```.*?```|<!--.*?-->", " ", text, flags=re.DOTALL)
    return [" ".join(part.split()) for part in SENTENCE_END.split(prose) if part.strip()]


def explanations_of(path: Path) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
    with path.open("rb") as file:
        comments = [each.string for each in tokenize.tokenize(file.readline) if each.type == tokenize.COMMENT]
    yield from (comment.lstrip("# ") for comment in comments)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_their_subjects(path: Path) -> None:
    titles = re.compile(r"^#+ .*$", re.MULTILINE)
    found = sentences(titles.sub("\n", path.read_text(encoding="utf-8")))
    assert [each for each in found if WITHOUT_NOUN.match(each.lstrip("*"))] == []


def test_comments_and_docstrings_name_their_subjects() -> None:
    found = {
        str(path.relative_to(ROOT)): each
        for path in CODE
        if "versions" not in path.parts
        for text in explanations_of(path)
        for each in sentences(text)
        if WITHOUT_NOUN.match(each)
    }
    assert found == {}
