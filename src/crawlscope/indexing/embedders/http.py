"""Shared by the embedders that are servers: requests that pages share, and wrong answers."""

import asyncio
import re
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from itertools import groupby
from operator import attrgetter
from time import perf_counter
from typing import NamedTuple, Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import numpy as np
import numpy.typing as npt
from pydantic_core import from_json, to_json
from tokenizers import Tokenizer

from crawlscope.core.batcher import Batcher
from crawlscope.core.batches import batches
from crawlscope.core.errors import EmbedderUnavailable, PageError, SettingsError
from crawlscope.core.http_settings import header_safe_key, server_url
from crawlscope.core.settings import without_credentials
from crawlscope.core.tls import trusted
from crawlscope.indexing.embedders.common import encodable, load_minilm_tokenizer, normalised
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors
from crawlscope.timing import note_wait
from crawlscope.timing.telemetry import conventions, traces

MAX_REQUESTS = 8
"""In progress at once."""
TIMEOUT_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_DETAIL_CHARACTERS = 200
MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""The maximum size of one answer, after decompression. The vectors of the largest batch take a tenth of that.
"""
UNAVAILABLE_STATUSES = frozenset({408, 409, 425, 429, 502, 503, 504})
_SIZE_COMPLAINT = re.compile(
    r"too (?:long|large|many|big)|batch size|context (?:length|window)|max\w* (?:\w+ ){0,3}(?:tokens|length)",
    re.IGNORECASE,
)


class BatchTooLarge(Exception):
    """The server accepts only fewer or shorter texts at once."""


class ServerUnavailable(EmbedderUnavailable):
    """No text can be embedded now. Other errors may be due to the texts of the request."""


class Dialect(Protocol):
    """The requests and answers of one kind of server."""

    @property
    def path(self) -> str: ...

    def body(self, texts: Sequence[str]) -> dict[str, object]: ...

    def rows(self, answer: object) -> object:
        """One list of numbers for each text, in order. Raises one of `SHAPE_ERRORS` for another shape."""
        ...


SHAPE_ERRORS = (TypeError, ValueError, KeyError, IndexError, OverflowError)


def _proxy_of(url: httpx2.URL) -> str | None:
    """The proxy of the environment.

    The session itself would look for it before each request, in a thread, and take logins from a netrc file.
    """
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or proxy_bypass(url.host):
        return None
    return address if "://" in address else f"http://{address}"


class Limits(NamedTuple):
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
        self.name = f"The embedding server at {without_credentials(str(self._url))}"
        """For messages: the address without secrets."""
        self.host = self._url.host
        self._address = cache(lambda path: str(self._url.copy_with(path=self.path + path)))
        headers = {"Content-Type": "application/json"}
        if api_key and not self._url.userinfo:
            headers["Authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=trusted()),
            proxy=_proxy_of(self._url),
        )

    @property
    def path(self) -> str:
        return self._url.path.rstrip("/")

    async def get(self, path: str) -> object:
        return await self._send("GET", path)

    async def post(self, path: str, body: dict[str, object], traceparent: str | None = None) -> object:
        return await self._send("POST", path, to_json(body), traceparent)

    async def aclose(self) -> None:
        await self._session.close()

    async def _send(
        self, method: str, path: str, data: bytes | None = None, traceparent: str | None = None
    ) -> object:
        headers = {"traceparent": traceparent} if traceparent else None
        try:
            async with self._session.request(
                method, self._address(path), data=data, headers=headers, allow_redirects=False
            ) as response:
                content = await self._body(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ServerUnavailable(f"{self.name} cannot be reached ({type(error).__name__}).") from None
        except TimeoutError:
            raise EmbedderUnavailable(
                f"{self.name} did not answer within {self._timeout_seconds:g} s."
            ) from None
        except aiohttp.ClientError as error:
            raise EmbedderUnavailable(f"{self.name} cannot be reached ({type(error).__name__}).") from None
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._refusal(response.status, content, response.reason or "")
        try:
            return from_json(content)
        except ValueError:
            kind = response.headers.get("Content-Type", "no type")
            raise EmbedderUnavailable(f"{self.name} answered something else than JSON ({kind}).") from None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise EmbedderUnavailable(f"{self.name} answered more than {MAX_ANSWER_BYTES >> 20} MiB.")
        return bytes(content)

    def _refusal(self, status: int, content: bytes, reason: str) -> Exception:
        detail = self._detail(content) or reason
        said = f"{self.name} answered {status}: {detail}"
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return BatchTooLarge(said)
        if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            return BatchTooLarge(said) if _SIZE_COMPLAINT.search(detail) else SettingsError(said)
        if status in UNAVAILABLE_STATUSES:
            return ServerUnavailable(said)
        # Text Embeddings Inference answers 424 if its model failed.
        if status == HTTPStatus.FAILED_DEPENDENCY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return EmbedderUnavailable(said)
        setting = "CRAWLSCOPE_EMBEDDER_URL and CRAWLSCOPE_EMBEDDER_MODEL"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            setting = "CRAWLSCOPE_EMBEDDER_API_KEY"
        return SettingsError(f"{said} — check {setting}.")

    def _detail(self, content: bytes) -> str:
        """The server's message on one line, without the API key, which some servers repeat.

        Known shapes: `{"error": "…"}`, `{"error": {"message": "…"}}`, `{"detail": "…"}`.
        """
        try:
            answer = from_json(content)
        except ValueError:
            answer = None
        for key in ("error", "message", "detail"):
            if isinstance(answer, dict) and key in answer:
                answer = answer[key]
        line = " ".join(answer.split()) if isinstance(answer, str) else ""
        if self._api_key:
            line = line.replace(self._api_key, "…")
        return line[:MAX_DETAIL_CHARACTERS]


class _Wait:
    """How long a page has waited for requests, and its trace."""

    def __init__(self) -> None:
        self.trace = traces.current()
        self._began: float | None = None
        self.seconds = 0.0

    def begin(self) -> None:
        self._began = perf_counter()

    def end(self) -> None:
        if self._began is not None:
            self.seconds += perf_counter() - self._began
            self._began = None


class _Text(NamedTuple):
    text: str
    tokens: int
    wait: _Wait
    """The same object for all texts of a page."""


_TOKENS = attrgetter("tokens")


class HttpEmbedder:
    """Texts of all pages share requests. A page has one batch in line at a time, at its end two, so that no
    page waits for all texts of a large one.

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
        self._requests = Batcher[_Text, npt.NDArray[np.float32]](
            self._embed_batch,
            max_items=limits.batch_texts,
            weight=_TOKENS,
            max_weight=limits.batch_tokens,
            concurrency=MAX_REQUESTS,
        )

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
        wait = _Wait()
        page = [_Text(text, _estimate_tokens(text), wait) for text in map(encodable, texts)]
        parts = list(batches(page, _TOKENS, self._limits.batch_tokens, self._limits.batch_texts))
        parts[-2:] = [[text for part in parts[-2:] for text in part]]
        rows: list[npt.NDArray[np.float32]] = []
        try:
            for part in parts:
                if self._requests.is_full:
                    wait.begin()
                rows += await self._requests.add_all(part)
        finally:
            wait.end()
            note_wait(wait.seconds)
        return np.stack(rows) if rows else np.empty((0, self._identity.dimension), np.float32)

    async def aclose(self) -> None:
        await self._server.aclose()

    async def _embed_batch(self, batch: Sequence[_Text]) -> list[npt.NDArray[np.float32] | Exception]:
        """Halves a batch that is too large; one that fails otherwise is tried again page by page."""
        for wait in {each.wait for each in batch}:
            wait.end()
        try:
            return list(await self._request(batch))
        except BatchTooLarge as refusal:
            if len(batch) == 1:
                return [PageError("text_too_long", str(refusal))]
            parts = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        except ServerUnavailable:
            raise
        except (EmbedderUnavailable, SettingsError) as error:
            parts = [list(page) for _, page in groupby(batch, attrgetter("wait"))]
            if len(parts) == 1:
                return [error] * len(batch)
        outcomes = await asyncio.gather(*map(self._embed_batch, parts))
        return [outcome for part in outcomes for outcome in part]

    async def _request(self, batch: Sequence[_Text]) -> Vectors:
        texts, waits = [each.text for each in batch], dict.fromkeys(each.wait for each in batch)
        pages = dict.fromkeys(wait.trace for wait in waits)
        attributes = conventions.embedding_attributes(
            self._identity.embedder, self._identity.model, self._server.host, len(texts)
        )
        with traces.shared_request([page for page in pages if page], "embeddings", attributes) as span:
            traceparent = span.traceparent if span else None
            vectors = await request_vectors(self._server, self._dialect, texts, traceparent)
        if vectors.shape[1] != self._identity.dimension:
            raise EmbedderUnavailable(
                f"{self._server.name} answered vectors of {vectors.shape[1]} dimensions "
                f"instead of {self._identity.dimension}: does it serve another model now?"
            )
        return vectors


async def request_vectors(
    server: EmbeddingServer, dialect: Dialect, texts: Sequence[str], traceparent: str | None = None
) -> Vectors:
    """One request. Raises `BatchTooLarge`, `EmbedderUnavailable` (a wrong answer too) or `SettingsError`."""
    answer = await server.post(dialect.path, dialect.body(texts), traceparent)
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
    return (len(text) if text.isascii() else len(text.encode())) // 3 + 2
