"""Hugging Face Text Embeddings Inference, which reports its model and limits."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from pydantic import BaseModel, Field, ValidationError

from crawlscope.core.errors import EmbedderUnavailable, SettingsError
from crawlscope.indexing.embedders.common import SPECIAL_TOKENS
from crawlscope.indexing.embedders.http import (
    TIMEOUT_SECONDS,
    BatchTooLarge,
    Dialect,
    EmbeddingServer,
    HttpEmbedder,
    Limits,
    learn_dimension,
)
from crawlscope.indexing.embedders.openai import OpenAIDialect
from crawlscope.indexing.embedders.port import EmbedderIdentity

COMPACT = OpenAIDialect(model=None, path="/v1/embeddings")
"""The server's other endpoint: its answers in base64 are half as long, and read in a third of the time. It
truncates texts only if the server was started so."""


class TeiDialect:
    path = "/embed"

    def body(self, texts: Sequence[str]) -> dict[str, object]:
        return {"inputs": list(texts), "truncate": True}

    def rows(self, answer: object) -> object:
        return answer


class TeiInfo(BaseModel):
    """The model, and the limits that the server was started with, as `GET /info` reports them."""

    model_id: str
    model_sha: str | None = None
    max_input_length: int = Field(gt=SPECIAL_TOKENS)
    max_client_batch_size: int = Field(gt=0)
    max_batch_tokens: int = Field(gt=0)
    auto_truncate: bool = False


async def open_tei(
    url: str, model: str | None = None, api_key: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> HttpEmbedder:
    """Asks the server for its model and limits. Raises `SettingsError` if it does not serve `model`."""
    async with AsyncExitStack() as on_error:
        server = EmbeddingServer(url, api_key, timeout_seconds)
        on_error.push_async_callback(server.aclose)
        try:
            info = TeiInfo.model_validate(await server.get("/info"))
        except ValidationError:
            raise EmbedderUnavailable(f"{server.name} does not say what it serves (GET /info).") from None
        except BatchTooLarge as refusal:
            raise SettingsError(str(refusal)) from None
        if model and model != info.model_id:
            raise SettingsError(
                f"{server.name} serves {info.model_id}, but CRAWLSCOPE_EMBEDDER_MODEL is {model}."
            )
        dialect, dimension = await _dialect(server, info)
        on_error.pop_all()
    identity = EmbedderIdentity("tei", info.model_id, info.model_sha or "", dimension)
    limits = Limits(info.max_client_batch_size, info.max_batch_tokens, info.max_input_length - SPECIAL_TOKENS)
    return HttpEmbedder(server, dialect, identity, limits)


async def _dialect(server: EmbeddingServer, info: TeiInfo) -> tuple[Dialect, int]:
    """With the dimension of the vectors."""
    if info.auto_truncate:
        try:
            return COMPACT, await learn_dimension(server, COMPACT)
        except (EmbedderUnavailable, SettingsError):
            pass  # the server is older, or a proxy lets only the other endpoint through
    dialect = TeiDialect()
    return dialect, await learn_dimension(server, dialect)
