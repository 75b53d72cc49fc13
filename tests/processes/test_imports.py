"""A process loads no library that only others need: each costs CPU at the start, and memory for good."""

import subprocess
import sys

import pytest

MODELS = {"onnxruntime", "tokenizers", "semantic_text_splitter"}
ENGINE = {"numpy", "qdrant_edge"}
DATABASE = {"sqlalchemy", "asyncpg", "pgqueuer"}
INTERFACES = {"fastapi", "starlette", "mcp", "typer"}
TELEMETRY = {"opentelemetry.sdk", "opentelemetry.exporter", "prometheus_client"}
"""Exporters, which only a process that exports loads."""


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("api.connect", MODELS | ENGINE | DATABASE | INTERFACES | TELEMETRY | {"lxml", "py3langid"}),
        ("processes.supervisor.up", MODELS | ENGINE | INTERFACES | TELEMETRY),
        ("processes.index_process", MODELS | DATABASE | INTERFACES | TELEMETRY),
        ("indexing.index.rebuilding", {"numpy", "asyncio", "pydantic", "structlog"}),
        ("processes.worker.process", MODELS | ENGINE | INTERFACES | TELEMETRY),
        ("cli.remote_check", {"onnxruntime", "qdrant_client"} | INTERFACES | TELEMETRY),
        ("processes.worker.index_pages", {"onnxruntime", "aiohttp"} | INTERFACES | TELEMETRY),
    ],
)
def test_a_process_loads_no_library_of_others(module: str, others: set[str]) -> None:
    program = f"import sys, crawlscope.{module}; print(*sys.modules)"
    names = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not others & set(names)


def test_the_package_itself_loads_nothing() -> None:
    program = "import sys, crawlscope; print(*sys.modules)"
    names = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not [name for name in names if name.startswith(("crawlscope.", "pydantic", "httpx2"))]
