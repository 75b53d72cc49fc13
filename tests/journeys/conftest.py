import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="package")
def quick_stack() -> Iterator[Stack]:
    """The whole service with a fake embedding server, for journeys without settings of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-journeys-") as folder,
        FakeEmbeddingServer() as embedder,
        running_stack(
            Path(folder) / "data", WORKERS="2", EMBEDDER="tei", EMBEDDER_URL=embedder.url
        ) as running,
    ):
        yield running
