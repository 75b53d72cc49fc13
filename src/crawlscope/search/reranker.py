"""Scores the best pages anew with a reranking model on a server, as long as that answers in time."""

import asyncio
import math
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Self

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from crawlscope.core.errors import RerankerUnavailable
from crawlscope.core.http_settings import header_safe_key, server_url
from crawlscope.core.remote_api import RemoteApi, Response, login
from crawlscope.core.settings import Settings
from crawlscope.indexing.index.qdrant_common import portions

RERANKED_PAGES = 50
PATIENCE_SECONDS = 2.0
MAX_FAILURES = 3
"""In a row; then the server gets no request for a while."""
PAUSE_SECONDS = 30.0
TEXTS_PER_REQUEST = 32
"""The number that Text Embeddings Inference accepts by default."""
PATH = "/rerank"

log = structlog.get_logger(__name__)


class _Score(BaseModel):
    index: int
    score: float


class _Relevance(BaseModel):
    index: int
    relevance_score: float


class _Relevances(BaseModel):
    results: list[_Relevance]


_SCORES = TypeAdapter(list[_Score])
_RELEVANCES = TypeAdapter(_Relevances)


class RerankingServer(RemoteApi):
    """Text Embeddings Inference; with a model's name, a server with the API of Cohere or Jina."""

    called = "The reranker"
    unavailable = RerankerUnavailable
    largest_answer_bytes = 1024 * 1024

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Raises `SettingsError`."""
        address = server_url("RERANKER_URL", url.rstrip("/").removesuffix(PATH))
        key = header_safe_key("RERANKER_API_KEY", api_key)
        super().__init__(
            address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auth=login(address),
            patience_seconds=patience_seconds,
            hidden=[key, address.password],
        )
        self._model = model

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None if none is configured. Raises `SettingsError`."""
        if settings.reranker_url is None:
            return None
        key = settings.reranker_api_key
        return cls(settings.reranker_url, settings.reranker_model, key.get_secret_value() if key else None)

    def complaint(self, response: Response) -> str:
        answer = response.json()
        answered = answer if isinstance(answer, dict) else {}
        return str(answered.get("error") or answered.get("message") or answered.get("detail") or "")

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One for each text, higher is better. Raises `RerankerUnavailable`."""
        if self._model:
            body = {"model": self._model, "query": query, "documents": list(texts), "top_n": len(texts)}
            found = (await self._ask(body, _RELEVANCES)).results
            return self._in_order([(one.index, one.relevance_score) for one in found], len(texts))
        parts = [list(part) for part in portions(texts, TEXTS_PER_REQUEST)]
        bodies = [{"query": query, "texts": part, "truncate": True} for part in parts]
        answers = await asyncio.gather(*(self._ask(body, _SCORES) for body in bodies))
        ordered = [
            self._in_order([(one.index, one.score) for one in answer], len(part))
            for answer, part in zip(answers, parts, strict=True)
        ]
        return [score for part_scores in ordered for score in part_scores]

    async def _ask(self, body: dict[str, Any], shape: TypeAdapter[Any]) -> Any:
        response = await self.request("POST", PATH, body)
        if response.status != HTTPStatus.OK:
            raise self.failure(f"answered {response.status_line}{self.reason(response)}")
        try:
            return shape.validate_python(response.json())
        except ValidationError:
            raise self.failure("answered without scores: check CRAWLSCOPE_RERANKER_MODEL.") from None

    def _in_order(self, scores: Sequence[tuple[int, float]], count: int) -> list[float]:
        by_index = dict(scores)
        if by_index.keys() != set(range(count)) or not all(map(math.isfinite, by_index.values())):
            raise self.failure(f"answered {len(scores)} scores for {count} texts.")
        return [by_index[index] for index in range(count)]


class Reranker:
    """A circuit breaker around the server: searches never fail or wait long because of it."""

    def __init__(self, server: RerankingServer) -> None:
        self._server = server
        self._failures = 0
        self._asked_again_at = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None if none is configured. Raises `SettingsError`."""
        server = RerankingServer.of(settings)
        return cls(server) if server else None

    async def scores(self, query: str, texts: Sequence[str]) -> list[float] | None:
        """None if the server fails, is too slow, or has failed several times just now."""
        if time.monotonic() < self._asked_again_at:
            return None
        try:
            found = await self._server.scores(query, texts)
        except RerankerUnavailable as error:
            self._failures += 1
            log.warning("reranking_failed", reason=str(error))
            if self._failures >= MAX_FAILURES:
                self._asked_again_at = time.monotonic() + PAUSE_SECONDS
            return None
        self._failures = 0
        return found

    async def aclose(self) -> None:
        await self._server.aclose()
