"""How the chunks and vectors of one index are made: the same for all that it holds."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from crawlscope.core.settings import Settings, without_credentials
from crawlscope.indexing.embedders.port import Embedder, EmbedderIdentity
from crawlscope.indexing.sparse import Bm25Encoder

CHUNKING_VERSION = 8
"""It is increased when cleaning, chunking or the embedded text of a chunk changes, or how it is embedded."""
CONTEXT_TOKENS = 54
"""Maximum number of tokens of title and headings before each chunk; the model sees both."""


@dataclass(frozen=True)
class Recipe:
    identity: EmbedderIdentity
    chunk_tokens: int
    url: str | None = None
    """The embedding server's, without secrets. Not part of the fingerprint, because a server may move."""

    @classmethod
    def of(cls, embedder: Embedder, settings: Settings) -> Self:
        """The recipe of the settings; `embedder` is the one that they configure."""
        served = embedder.identity.embedder in ("tei", "openai")
        return cls(
            embedder.identity,
            min(settings.chunk_tokens, max(embedder.max_tokens - CONTEXT_TOKENS, embedder.max_tokens // 2)),
            without_credentials(settings.embedder_url) if served and settings.embedder_url else None,
        )

    @property
    def has_parts(self) -> bool:
        """Whether chunks have parts: only the models in this process show what a chunk's tokens say."""
        return self.identity.embedder == "local"

    @cached_property
    def fingerprint(self) -> str:
        """Identifies what this version makes by the recipe; an older version may have made other chunks."""
        identity = self.identity
        vectors = f"{identity.embedder}:{identity.model}:{identity.revision}:{identity.dimension}"
        return f"{vectors}|{Bm25Encoder.fingerprint}|chunks:{CHUNKING_VERSION}:{self.chunk_tokens}"

    def embedder_to_json(self) -> dict[str, Any]:
        return {**vars(self.identity), "url": self.url}

    @classmethod
    def from_json(cls, embedder: dict[str, Any], chunk_tokens: int) -> Self:
        kept = dict(embedder)
        url = kept.pop("url")
        return cls(EmbedderIdentity(**kept), chunk_tokens, url)
