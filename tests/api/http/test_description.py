"""The API does what its own description says, on generated requests: right ones and wrong ones."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from crawlscope.core.service_file import WEBHOOK_PATH
from crawlscope.core.settings import Settings
from tests.api.http.conftest import SECRET, Service
from tests.support.fakes.changedetection_server import KEY, FakeChangedetection
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.firecrawl_server import FakeFirecrawl
from tests.support.serving import serving

PROGRAM = Path(sys.executable).with_name("st")
CONFIG = Path(__file__).with_name("schemathesis.toml")
TOKEN = "token-of-a-url"
"""As in schemathesis.toml."""


@pytest.fixture
async def url(database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """A service over HTTP, beside which everything runs that it can be configured with."""
    with FakeEmbeddingServer() as embedder, FakeFirecrawl() as firecrawl, FakeChangedetection() as watcher:
        settings = Settings(
            _env_file=None,
            data_dir=tmp_path,
            port=0,
            api_secret=SECRET,
            receive_token=TOKEN,
            database_url=database_url,
            embedder="tei",
            embedder_url=embedder.url,
            firecrawl_url=firecrawl.url,
            changedetection_url=watcher.url,
            changedetection_api_key=KEY,
            notify_url="http://127.0.0.1:1/",
        )
        async with serving(settings, keeps_index=True) as running:
            yield running.url


@pytest.mark.parametrize(
    "examples", [3, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])]
)
async def test_the_api_is_as_described(url: str, examples: int, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            PROGRAM,
            "--config-file",
            CONFIG,
            "run",
            f"{url}/openapi.json",
            "--header",
            f"X-API-Secret: {SECRET}",
        ),
        *("--phases", "coverage,fuzzing", "--max-examples", str(examples), "--workers", "1", "--seed", "1"),
        *("--suppress-health-check", "all", "--generation-database", "none", "--request-timeout", "60"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output[-20_000:]
    generated = re.search(r"(\d+) generated, \1 passed", output)
    assert generated, output[-2_000:]
    assert int(generated[1]) > 1_000


@pytest.mark.parametrize(
    "event",
    [
        {"type": "crawl.page", "id": "a", "data": [{}]},
        {"type": "crawl.page", "id": "a", "data": "text"},
        {"type": "crawl.page", "id": "a", "metadata": []},
        {"type": "crawl.page"},
        {"type": "crawl.a*", "id": ""},
        {"type": "agent.action", "id": "a", "data": "text"},
        {"type": "agent.action", "id": "a", "metadata": []},
        {"type": "a.a*", "data": "text", "metadata": []},
        {"type": "crawl."},
        {"type": ""},
        {"type": 1, "id": "a"},
        {"id": "a"},
    ],
)
async def test_deliveries_are_accepted_as_described(event: dict[str, Any], service: Service) -> None:
    described = (await service.http.get("/openapi.json")).json()["paths"][WEBHOOK_PATH]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    answer = await service.http.post(WEBHOOK_PATH, json=event)
    assert answer.status_code == (202 if jsonschema_rs.is_valid(schema, event) else 422)
