"""Shared by the embedders that are servers: batches, their sizes, and wrong answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx2
import numpy as np
from tokenizers import Tokenizer

from crawlscope.core.errors import EmbedderUnavailable, PageError, SettingsError
from crawlscope.core.http_settings import header_safe_key, server_url
from crawlscope.core.settings import without_credentials
from crawlscope.indexing.batches import batches
from crawlscope.indexing.embedders.common import encodable, load_minilm_tokenizer, normalised
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors

TIMEOUT_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_DETAIL_CHARACTERS = 200
TRANSIENT_STATUSES = frozenset({408, 409, 424, 425, 429})
"""Another attempt can succeed; Text Embeddings Inference answers 424 if its model failed."""
_SIZE_COMPLAINT = re.compile(
    r"too (?:long|large|many|big)|batch size|context (?:length|window)|max\w* (?:\w+ ){0,3}(?:tokens|length)",
    re.IGNORECASE,
)


class BatchTooLarge(Exception):
    """The server accepts only fewer or shorter texts at once."""


class Dialect(Protocol):
    """The requests and answers of one kind of server."""

    @property
    def path(self) -> str: ...

    def body(self, texts: Sequence[str]) -> dict[str, object]: ...

    def rows(self, answer: object) -> object:
        """One list of numbers for each text, in order. Raises one of `SHAPE_ERRORS` for another shape."""
        ...


SHAPE_ERRORS = (TypeError, ValueError, KeyError, IndexError, OverflowError)


@dataclass(frozen=True)
class Limits:
    batch_texts: int
    batch_tokens: int
    text_tokens: int


class EmbeddingServer:
    """Requests end with an answer, or with an error of one line that never contains the API key."""

    def __init__(
        self, url: str, api_key: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._url = server_url("EMBEDDER_URL", url)
        self._api_key = header_safe_key("EMBEDDER_API_KEY", api_key)
        self._timeout_seconds = timeout_seconds
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        )

    @property
    def name(self) -> str:
        """For messages: the address without secrets."""
        return f"The embedding server at {without_credentials(str(self._url))}"

    @property
    def path(self) -> str:
        return self._url.path.rstrip("/")

    async def get(self, path: str) -> object:
        return await self._send("GET", path, None)

    async def post(self, path: str, body: dict[str, object]) -> object:
        return await self._send("POST", path, body)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _send(self, method: str, path: str, body: dict[str, object] | None) -> object:
        url = self._url.copy_with(path=self.path + path)
        try:
            response = await self._client.request(method, url, json=body)
        except httpx2.TimeoutException:
            raise EmbedderUnavailable(
                f"{self.name} did not answer within {self._timeout_seconds:g} s."
            ) from None
        except httpx2.HTTPError as error:
            raise EmbedderUnavailable(f"{self.name} cannot be reached ({type(error).__name__}).") from None
        if not response.is_success:
            raise self._refusal(response)
        try:
            return response.json()
        except (ValueError, RecursionError):
            kind = response.headers.get("Content-Type", "no type")
            raise EmbedderUnavailable(f"{self.name} answered something else than JSON ({kind}).") from None

    def _refusal(self, response: httpx2.Response) -> Exception:
        status, detail = response.status_code, self._detail(response)
        said = f"{self.name} answered {status}: {detail}"
        if status == httpx2.codes.CONTENT_TOO_LARGE:
            return BatchTooLarge(said)
        if status in (httpx2.codes.BAD_REQUEST, httpx2.codes.UNPROCESSABLE_CONTENT):
            return BatchTooLarge(said) if _SIZE_COMPLAINT.search(detail) else SettingsError(said)
        if status in TRANSIENT_STATUSES or response.is_server_error:
            return EmbedderUnavailable(said)
        setting = "CRAWLSCOPE_EMBEDDER_URL and CRAWLSCOPE_EMBEDDER_MODEL"
        if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            setting = "CRAWLSCOPE_EMBEDDER_API_KEY"
        return SettingsError(f"{said} — check {setting}.")

    def _detail(self, response: httpx2.Response) -> str:
        """The server's message on one line, without the API key, which some servers repeat.

        Known shapes: `{"error": "…"}`, `{"error": {"message": "…"}}`, `{"detail": "…"}`.
        """
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        for key in ("error", "message", "detail"):
            if isinstance(answer, dict) and key in answer:
                answer = answer[key]
        line = " ".join(answer.split()) if isinstance(answer, str) else ""
        if self._api_key:
            line = line.replace(self._api_key, "…")
        return line[:MAX_DETAIL_CHARACTERS] or response.reason_phrase


class HttpEmbedder:
    """Sends one batch after the other; halves a batch that the server refuses as too large.

    Never retries, because the queue does. The local model's tokenizer counts the tokens, because the
    server's is not available.
    """

    def __init__(
        self, server: EmbeddingServer, dialect: Dialect, identity: EmbedderIdentity, limits: Limits
    ) -> None:
        self._server = server
        self._dialect = dialect
        self._identity = identity
        self._limits = limits
        self._tokenizer = load_minilm_tokenizer()

    @property
    def identity(self) -> EmbedderIdentity:
        return self._identity

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        return self._limits.text_tokens

    async def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = [
            await self._embed_batch(batch)
            for batch in batches(
                map(encodable, texts), _estimate_tokens, self._limits.batch_tokens, self._limits.batch_texts
            )
        ]
        return np.concatenate([np.empty((0, self._identity.dimension), np.float32), *vectors])

    async def aclose(self) -> None:
        await self._server.aclose()

    async def _embed_batch(self, batch: list[str]) -> Vectors:
        try:
            vectors = await request_vectors(self._server, self._dialect, batch)
        except BatchTooLarge as refusal:
            if len(batch) == 1:
                raise PageError("text_too_long", str(refusal)) from None
            half = len(batch) // 2
            return np.concatenate(
                [await self._embed_batch(batch[:half]), await self._embed_batch(batch[half:])]
            )
        if vectors.shape[1] != self._identity.dimension:
            raise EmbedderUnavailable(
                f"{self._server.name} answered vectors of {vectors.shape[1]} dimensions "
                f"instead of {self._identity.dimension}: does it serve another model now?"
            )
        return vectors


async def request_vectors(server: EmbeddingServer, dialect: Dialect, texts: Sequence[str]) -> Vectors:
    """One request. Raises `BatchTooLarge`, `EmbedderUnavailable` (a wrong answer too) or `SettingsError`."""
    answer = await server.post(dialect.path, dialect.body(texts))
    try:
        with np.errstate(over="ignore"):
            vectors = np.asarray(dialect.rows(answer), np.float32)
    except SHAPE_ERRORS:
        raise EmbedderUnavailable(
            f"{server.name} answered JSON that holds no vectors of one length."
        ) from None
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise EmbedderUnavailable(f"{server.name} answered JSON that holds no vectors.")
    if len(vectors) != len(texts):
        raise EmbedderUnavailable(f"{server.name} answered {len(vectors)} vectors for {len(texts)} texts.")
    return normalised(vectors, server.name)


async def learn_dimension(server: EmbeddingServer, dialect: Dialect) -> int:
    """Embeds one word. Raises `SettingsError` if the server refuses even that."""
    try:
        vectors = await request_vectors(server, dialect, ["dimension"])
    except BatchTooLarge as refusal:
        raise SettingsError(str(refusal)) from None
    return len(vectors[0])


def _estimate_tokens(text: str) -> int:
    """Without a tokenizer: three bytes for a token are few in English and about right in Chinese."""
    return len(text.encode()) // 3 + 2
