"""A running service that MCP may ask to crawl the fake website, which has a private address."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.loopback import free_port
from tests.support.stack import Stack, running_stack


@dataclass(frozen=True)
class Service:
    stack: Stack
    embedder: FakeEmbeddingServer


@pytest.fixture(scope="package")
def mcp_service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-mcp-") as folder,
        FakeEmbeddingServer() as embedder,
        running_stack(
            Path(folder) / "data",
            PORT=str(free_port()),  # where it comes back after the test that kills it
            WORKERS="1",
            EMBEDDER="tei",
            EMBEDDER_URL=embedder.url,
            ALLOW_PRIVATE_TARGETS="true",
        ) as stack,
    ):
        yield Service(stack, embedder)
