"""Any server with OpenAI's `POST /v1/embeddings`: OpenAI, vLLM, Ollama, llama.cpp and many more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
"""Such servers do not tell their limits: these are OpenAI's for one text, and modest ones for a batch."""


@dataclass(frozen=True)
class OpenAIDialect:
    model: str
    path: str
    dimensions: int | None = None
    """None: not asked for, because many servers refuse to be."""

    def body(self, texts: Sequence[str]) -> dict[str, object]:
        asked = {} if self.dimensions is None else {"dimensions": self.dimensions}
        return {"model": self.model, "input": list(texts), "encoding_format": "float", **asked}

    def rows(self, answer: Any) -> object:
        """Ordered by `index`, because the order of the answer is not promised."""
        rows = {item["index"]: item["embedding"] for item in answer["data"]}
        if len(rows) != len(answer["data"]):
            raise ValueError("an index twice")
        return [rows[index] for index in range(len(rows))]


async def open_openai(
    url: str,
    model: str,
    api_key: str | None = None,
    dimensions: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> HttpEmbedder:
    """`url` with or without the closing `/v1`. Embeds one word to learn the dimension."""
    server = EmbeddingServer(url, api_key, timeout_seconds)
    path = "/embeddings" if server.path.endswith("/v1") else "/v1/embeddings"
    dialect = OpenAIDialect(model, path, dimensions)
    try:
        dimension = await learn_dimension(server, dialect)
        _require_dimensions(server, dimension, dimensions)
    except BaseException:
        await server.aclose()
        raise
    return HttpEmbedder(server, dialect, EmbedderIdentity("openai", model, "", dimension), _LIMITS)


def _require_dimensions(server: EmbeddingServer, found: int, asked: int | None) -> None:
    if asked not in (None, found):
        raise SettingsError(
            f"{server.name} answers vectors of {found} dimensions whatever is asked for: "
            "unset CRAWLSCOPE_EMBEDDER_DIMENSIONS."
        )
