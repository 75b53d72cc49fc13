"""Collects every name that users, scripts and other programs rely on.

    python -m tests.docs.public_names

writes them to `public_names.json`, after a change of the public interface that is wanted.
"""

import asyncio
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import typer.main
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sqlalchemy.dialects import postgresql

import crawlscope
from crawlscope import models
from crawlscope.api.app import create_app
from crawlscope.api.mcp.server import create_server
from crawlscope.cli.main import app
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.processes.parts import Parts
from tests.support.documentation import Section, page

RECORD = Path(__file__).with_name("public_names.json")
PYTHON = {
    "crawlscope": crawlscope.__all__,
    "crawlscope.timing": ["TimingContext"],
    "crawlscope.indexing": ["DocumentMetadata", "IndexDocumentRequest"],
}
METHODS = [
    ("crawlscope.indexing", "IndexingService", "index_document"),
    *(
        ("crawlscope", "ServiceClient", name)
        for name, member in vars(crawlscope.ServiceClient).items()
        if not name.startswith("_") and callable(member)
    ),
]


def recorded() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(RECORD.read_text(encoding="utf-8")))


def collected() -> dict[str, Any]:
    openapi = _web_application().openapi()
    return {
        "commands": _commands(),
        "exit codes": _exit_codes(),
        "settings": _settings(),
        "endpoints": dict(sorted(_endpoints(openapi))),
        "models of the API": {
            name: _fields(schema) for name, schema in sorted(openapi["components"]["schemas"].items())
        },
        "MCP tools": asyncio.run(_tools()),
        "tables": _tables(),
        "Python": _python(),
    }


def _web_application() -> Any:
    return create_app(cast(Parts, SimpleNamespace(database=None)))


def _commands() -> dict[str, list[str]]:
    """The arguments and options of each command."""
    found: dict[str, list[str]] = {}

    def visit(name: str, command: Any) -> None:
        found[name] = [
            "/".join(each.opts) if each.param_type_name == "option" else each.metavar or each.name.upper()
            for each in command.params
        ]
        for child, below in getattr(command, "commands", {}).items():
            visit(f"{name} {child}", below)

    visit("crawlscope", typer.main.get_command(app))
    return dict(sorted(found.items()))


def _exit_codes() -> dict[str, str]:
    rows = Section("", page("docs/cli.md")).rows("exit code")
    return {code: re.split("[:;.]", meaning)[0] for code, meaning in rows}


def _settings() -> dict[str, Any]:
    """The defaults that do not depend on the machine."""
    return {
        f"{ENV_PREFIX}{name}".upper(): None if field.default is PydanticUndefined else field.default
        for name, field in sorted(Settings.model_fields.items())
    }


def _endpoints(openapi: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each with its parameters, the body of its request and its answers."""
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parameters = [f"{each['in']} {each['name']}" for each in operation.get("parameters", [])]
            bodies = [f"body {_model(operation['requestBody'])}"] if "requestBody" in operation else []
            answers = [
                f"{status} {_model(answer)}".strip() for status, answer in operation["responses"].items()
            ]
            yield f"{method.upper()} {path}", [*sorted(parameters), *bodies, *sorted(answers)]
    for route in _web_application().routes:
        if isinstance(route, APIRoute) and route.path not in openapi["paths"]:
            yield f"GET {route.path}", []


def _model(described: dict[str, Any]) -> str:
    schema = described.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rsplit("/", 1)[-1]


def _fields(schema: dict[str, Any]) -> list[str]:
    """The fields of an object, or the values of an enumeration."""
    return sorted(schema.get("properties", schema.get("enum", [])))


async def _tools() -> dict[str, dict[str, list[str]]]:
    server = create_server(cast(Any, None), asyncio.Event())
    return {
        tool.name: {"arguments": _fields(tool.input_schema), "results": _fields(tool.output_schema or {})}
        for tool in sorted(await server.list_tools(), key=lambda tool: tool.name)
    }


def _tables() -> dict[str, dict[str, str]]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # has no annotations
    return {
        str(table): {
            column.name: column.type.compile(dialect) + (" NULL" if column.nullable else "")
            for column in sorted(table.columns, key=lambda column: column.name)
        }
        for table in sorted(models.Base.metadata.tables.values(), key=str)
    }


def _python() -> dict[str, list[str]]:
    """The parameters of each class and method."""
    found = {
        f"{module}.{name}": _parameters(getattr(importlib.import_module(module), name))
        for module, names in PYTHON.items()
        for name in names
    }
    for module, owner, method in METHODS:
        of = getattr(importlib.import_module(module), owner)
        found[f"{module}.{owner}.{method}"] = _parameters(getattr(of, method))
    return found | {
        f"crawlscope.models.{mapper.class_.__name__}": []
        for mapper in sorted(models.Base.registry.mappers, key=lambda mapper: mapper.class_.__name__)
        if hasattr(models, mapper.class_.__name__)
    }


def _parameters(of: Any) -> list[str]:
    if isinstance(of, type) and issubclass(of, Exception | BaseModel):
        return []  # its text; its fields are among the models of the API
    return [name for name in inspect.signature(of).parameters if name != "self"]


def _written(names: dict[str, Any]) -> str:
    """JSON with one name a line, so that a diff shows what changes."""
    areas = []
    for area, entries in names.items():
        lines = [
            f"  {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}"
            for name, entry in entries.items()
        ]
        areas.append(f" {json.dumps(area)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(areas) + "\n}\n"


if __name__ == "__main__":
    RECORD.write_text(_written(collected()), encoding="utf-8")
