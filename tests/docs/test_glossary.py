"""One word for each idea, the glossary's: in docs, help, settings, log events and names of the code."""

import ast
import asyncio
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer.main

from crawlscope.api.app import create_app
from crawlscope.api.mcp.server import create_server
from crawlscope.cli.main import app
from crawlscope.core.settings import Settings
from crawlscope.processes.parts import Parts
from tests.support.documentation import PAGES, ROOT, Section, page

GLOSSARY = ROOT / "docs" / "glossary.md"
WORDS = [row[0] for row in Section("", page("docs/glossary.md")).rows("word")]
OLD_WORDS = re.compile(
    r"\b(doors?|faces?|keeper|telling|noticers?|noticing|strangers?|finders?|workshop|verbs|whoever|"
    r"bad days|in hand|in peace|in vain|(is|are|was|were|went) away|heard of|taken in|"
    r"goes on by itself|the (most|least|longest|largest) (pages|crawls|watches|tokens))\b",
    re.IGNORECASE,
)
PACKAGE = ROOT / "src" / "crawlscope"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)
CODE = sorted({*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")} - {Path(__file__)})
OLD_NAMES = {
    *(
        "door",
        "doors",
        "face",
        "faces",
        "keeper",
        "telling",
        "told",
        "noticer",
        "noticing",
        "stranger",
        "strangers",
    ),
    *("finder", "finders", "workshop", "verbs", "away", "vain", "whoever", "heard"),
}
OLD_PREFIXES = ("MOST_", "LONGEST_", "LARGEST_", "LEAST_", "SHORTEST_")
KEPT_NAMES = {"door"}  # a field of the API
NO_OLD_WORDS = re.compile(r"keeper\.lock|Hugging Face")
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z]+(_[a-z]+)*_([a-z]+ed|lost|given)(_[a-z]+)*")


def prose(text: str) -> str:
    """Without what is written as code, such as names of JSON fields that stay as they are."""
    return NO_OLD_WORDS.sub(" ", re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL))


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


def test_each_word_is_used():
    pages = [path for path in [*PAGES, *SOURCES] if path != GLOSSARY]
    text = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in pages)
    unused = [word for word in WORDS if not re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE)]
    assert unused == []


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


def test_answers_are_described_in_standard_words():
    openapi = json.dumps(create_app(cast(Parts, SimpleNamespace(database=None))).openapi())
    descriptions = re.findall(r'"(?:description|summary)": "((?:[^"\\]|\\.)*)"', openapi)
    assert [found for text in descriptions for found in old_words(prose(text))] == []


async def test_tools_are_described_in_standard_words():
    tools = await create_server(cast(Any, None), asyncio.Event()).list_tools()
    assert [found for tool in tools for found in old_words(tool.model_dump_json())] == []


def test_log_events_are_nouns_and_verbs_in_the_past_tense():
    events = sorted({event for path in SOURCES for event in events_of(path)})
    assert len(events) > 50
    assert [event for event in events if not EVENT.fullmatch(event)] == []


def test_modules_and_names_use_standard_words():
    found = {
        str(path.relative_to(ROOT)): sorted(name for name in names if is_old(name))
        for path in CODE
        if any(map(is_old, names := {path.stem, *names_of(path)} - KEPT_NAMES))
    }
    assert found == {}


def test_comments_and_messages_use_standard_words():
    found = {str(path.relative_to(ROOT)): words for path in CODE if (words := old_words(sentences_of(path)))}
    assert found == {}


def is_old(name: str) -> bool:
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    return bool(OLD_NAMES & words) or name.lstrip("_").startswith(OLD_PREFIXES)


def sentences_of(path: Path) -> str:
    """The comments, docstrings and messages of a module: strings without a blank are keys and values."""
    with path.open("rb") as file:
        found = [
            token.string
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT or (token.type in STRINGS and " " in token.string)
        ]
    return prose("\n".join(found))


def events_of(path: Path) -> Iterator[str]:
    """The log events in a module: what a logger is called with, and what is passed on as `…event`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        logged = isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS
        values = (
            node.args[:1] if logged and ast.unparse(cast(ast.Attribute, node.func).value) == "log" else []
        )
        values += [each.value for each in node.keywords if each.arg in ("failure_event", "event")]
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def names_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
