"""Any server with OpenAI's `POST /v1/embeddings`: OpenAI, vLLM, Ollama, llama.cpp and many more."""

from binascii import a2b_base64
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crawlscope.core.errors import SettingsError
from crawlscope.indexing.embedders.http import (
    TIMEOUT_SECONDS,
    EmbeddingServer,
    HttpEmbedder,
    Limits,
    learn_dimension,
)
from crawlscope.indexing.embedders.port import EmbedderIdentity

_LIMITS = Limits(batch_texts=64, batch_tokens=16_384, text_tokens=8_191)
"""Such servers do not report their limits: these are OpenAI's for a text, and low ones for a batch."""


@dataclass(frozen=True)
class OpenAIDialect:
    model: str | None
    """None sends no such field: the server has one model."""
    path: str
    dimensions: int | None = None
    """None sends no such field, because many servers refuse it."""
    encoding: str = "base64"
    """The format that OpenAI's own client requests. A server may answer numbers instead."""

    def body(self, texts: Sequence[str]) -> dict[str, object]:
        optional = {"model": self.model, "dimensions": self.dimensions}
        given = {name: value for name, value in optional.items() if value is not None}
        return {"input": list(texts), "encoding_format": self.encoding, **given}

    def rows(self, answer: Any) -> object:
        """Ordered by `index`, because servers may answer in any order."""
        rows = {item["index"]: item["embedding"] for item in answer["data"]}
        if len(rows) != len(answer["data"]):
            raise ValueError("an index twice")
        ordered = [rows[index] for index in range(len(rows))]
        if ordered and isinstance(ordered[0], str):
            packed = [a2b_base64(row) for row in ordered]
            if len({*map(len, packed)}) > 1:
                raise ValueError("vectors of different lengths")
            return np.frombuffer(b"".join(packed), "<f4").reshape(len(packed), -1)
        return ordered


async def open_openai(
    url: str,
    model: str,
    api_key: str | None = None,
    dimensions: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> HttpEmbedder:
    """`url` with or without `/v1` at its end. Embeds one word to learn the dimension.

    Raises `EmbedderUnavailable` or `SettingsError`.
    """
    async with AsyncExitStack() as on_error:
        server = EmbeddingServer(url, api_key, timeout_seconds)
        on_error.push_async_callback(server.aclose)
        path = "/embeddings" if server.path.endswith("/v1") else "/v1/embeddings"
        dialect = OpenAIDialect(model, path, dimensions)
        try:
            dimension = await learn_dimension(server, dialect)
        except SettingsError:
            dialect = replace(dialect, encoding="float")
            dimension = await learn_dimension(server, dialect)
        if dimensions not in (None, dimension):
            raise SettingsError(
                f"{server.name} answers vectors of {dimension} dimensions whatever is asked for: "
                "unset CRAWLSCOPE_EMBEDDER_DIMENSIONS."
            )
        on_error.pop_all()
    return HttpEmbedder(server, dialect, EmbedderIdentity("openai", model, "", dimension), _LIMITS)
