import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute

from crawlscope.api.app import create_app
from crawlscope.processes.parts import Parts
from tests.support.documentation import blocks, page, sections

TEXT = page("docs/api.md")
SECTIONS = {section.names[0]: section for section in sections(TEXT, level=3) if section.names}
APP = create_app(cast(Parts, SimpleNamespace(database=None)))
OPENAPI = APP.openapi()


def operations() -> dict[str, dict[str, Any]]:
    described = {
        f"{method.upper()} {path}": operation
        for path, methods in OPENAPI["paths"].items()
        for method, operation in methods.items()
    }
    routes = (route for route in APP.routes if isinstance(route, APIRoute))
    plain: dict[str, dict[str, Any]] = {f"GET {route.path}": {} for route in routes}
    return plain | described


OPERATIONS = operations()


def test_every_endpoint_is_documented_and_no_other():
    assert set(SECTIONS) == set(OPERATIONS)


@pytest.mark.parametrize("endpoint", sorted(OPERATIONS))
def test_every_query_parameter_is_documented_and_no_other(endpoint):
    parameters = OPERATIONS[endpoint].get("parameters", [])
    names = {each["name"] for each in parameters if each["in"] == "query"}
    assert set(SECTIONS[endpoint].first_names("parameter")) == names


@pytest.mark.parametrize("endpoint", ["POST /api/crawls", "POST /api/search"])
def test_every_field_of_a_request_is_documented_and_no_other(endpoint):
    body = OPERATIONS[endpoint]["requestBody"]["content"]["application/json"]["schema"]
    assert set(SECTIONS[endpoint].first_names("field")) == set(_resolved(body)["properties"])


@pytest.mark.parametrize("endpoint", sorted(OPERATIONS))
def test_the_examples_have_the_fields_of_real_answers(endpoint):
    schema = _answer_schema(OPERATIONS[endpoint])
    if schema:
        for example in SECTIONS[endpoint].blocks("json"):
            _compare(json.loads(example), schema, endpoint)


def test_lists_are_shown():
    answers = [name for name, each in OPERATIONS.items() if name.startswith("GET") and _answer_schema(each)]
    exceptions = {"GET /healthz", "GET /api/metrics/crawls"}
    assert all(SECTIONS[name].blocks("json") for name in set(answers) - exceptions)


def test_errors_are_described_the_same_each_time():
    described = APP.openapi()["paths"]["/api/stats"]["get"]["responses"]["401"]["content"]
    assert described == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert APP.openapi()["paths"]["/api/stats"]["get"]["responses"]["401"]["content"] == described


def test_every_json_block_is_json():
    for name in ("README.md", "docs/api.md", "docs/how-to.md"):
        for block in blocks(page(name), "json"):
            json.loads(block)


def _answer_schema(operation: dict[str, Any]) -> Any:
    for status, answer in operation.get("responses", {}).items():
        if status.startswith("2"):
            return answer.get("content", {}).get("application/json", {}).get("schema", {})
    return {}


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = OPENAPI["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def _compare(example: Any, schema: dict[str, Any], where: str) -> None:
    schema = _resolved(schema)
    if "anyOf" in schema:
        if example is None:
            return
        schema = _resolved(next(each for each in schema["anyOf"] if each.get("type") != "null"))
    if isinstance(example, list):
        for each in example:
            _compare(each, schema["items"], f"{where}[]")
    elif isinstance(example, dict) and "properties" in schema:
        assert set(example) == set(schema["properties"]), where
        for name, value in example.items():
            _compare(value, schema["properties"][name], f"{where}.{name}")
    elif isinstance(example, dict) and isinstance(schema.get("additionalProperties"), dict):
        for name, value in example.items():
            _compare(value, schema["additionalProperties"], f"{where}.{name}")
