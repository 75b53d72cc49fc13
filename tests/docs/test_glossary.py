"""One word for each idea: the glossary's, in docs, help and settings; words of old are gone."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from crawlscope.cli.main import app
from crawlscope.core.settings import Settings
from tests.support.documentation import PAGES, ROOT, Section, page

GLOSSARY = ROOT / "docs" / "glossary.md"
WORDS = [row[0] for row in Section("", page("docs/glossary.md")).rows("word")]
OLD_WORDS = re.compile(
    r"\b(doors?|faces?|keeper|telling|noticers?|noticing|strangers?|finders?|workshop|verbs|whoever|"
    r"bad days|in hand|in peace|in vain|(is|are|was|were|went) away|heard of|taken in|"
    r"goes on by itself|the (most|least|longest|largest) (pages|crawls|watches|tokens))\b",
    re.IGNORECASE,
)


def prose(text: str) -> str:
    """Without what is written as code, such as names of JSON fields that stay as they are."""
    return re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL)


def old_words(text: str) -> list[str]:
    return [found.group() for found in OLD_WORDS.finditer(text)]


def help_texts(command: Any) -> Iterator[str]:
    yield command.help or ""
    for parameter in command.params:
        yield getattr(parameter, "help", None) or ""
    for below in getattr(command, "commands", {}).values():
        yield from help_texts(below)


def test_words_are_sorted_and_explained_in_a_line_each():
    assert sorted(WORDS, key=str.lower) == WORDS
    assert len(set(WORDS)) == len(WORDS)
    lines = [line for line in page("docs/glossary.md").splitlines() if line.startswith("| ")]
    assert len(lines) == len(WORDS) + 2, "a heading, a rule and one line for each word"


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_used(word):
    pages = [path for path in [*PAGES, *ROOT.glob("src/**/*.py")] if path != GLOSSARY]
    texts = (re.sub(r"\s+", " ", path.read_text(encoding="utf-8")) for path in pages)
    pattern = re.compile(rf"\b{re.escape(word)}", re.IGNORECASE)
    assert any(pattern.search(text) for text in texts)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/api.md", "docs/architecture.md", "docs/cli.md"]
)
def test_pages_lead_to_the_glossary(name):
    assert re.search(r"\]\((docs/)?glossary\.md\)", page(name))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_use_standard_words(path):
    assert old_words(prose(path.read_text(encoding="utf-8"))) == []


def test_help_uses_standard_words():
    assert [found for text in help_texts(typer.main.get_command(app)) for found in old_words(text)] == []


def test_settings_are_described_in_standard_words():
    descriptions = [field.description or "" for field in Settings.model_fields.values()]
    assert all(descriptions)
    assert [found for text in descriptions for found in old_words(text)] == []
