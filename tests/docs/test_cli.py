import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from crawlscope.cli.main import app
from tests.support.documentation import PAGES, Section, blocks, code_of, page, sections

SECTIONS = sections(page("docs/cli.md"), level=2)
DOCUMENTED = {" ".join(re.findall(r"\b[a-z]+\b", name)): each for each in SECTIONS for name in each.names}


def commands(group: Any = None, prefix: str = "crawlscope") -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(app)
    yield prefix, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{prefix} {name}")


GROUPS = {"crawlscope db", "crawlscope keys"}
COMMANDS = {name: command for name, command in commands() if name not in GROUPS}


def test_every_command_is_documented_and_no_other():
    assert set(DOCUMENTED) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_documented_and_no_other(name):
    options = {spelled for each in COMMANDS[name].params for spelled in each.opts if spelled.startswith("--")}
    assert set(DOCUMENTED[name].first_names("option")) == options


@pytest.mark.parametrize("name", ["crawl", "profile", "compare", "search", "retry"])
def test_arguments_are_written_as_the_help_writes_them(name):
    command = COMMANDS[f"crawlscope {name}"]
    arguments = [each.metavar for each in command.params if each.param_type_name == "argument"]
    assert _title(DOCUMENTED[f"crawlscope {name}"]) == " ".join(["crawlscope", name, *arguments])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_commands_that_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\bcrawlscope ([a-z]+)\b", "\n".join([*code_of(text), *blocks(text, "sh")]))
    assert {f"crawlscope {name}" for name in named} <= COMMANDS.keys() | GROUPS


def _title(section: Section) -> str:
    return section.names[0]
