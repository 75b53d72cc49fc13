"""The port to embedders, which turn text into dense vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]
"""Shape (texts, dimension), each row of length 1."""


@dataclass(frozen=True)
class EmbedderIdentity:
    """Vectors may be compared with each other if they are of one identity."""

    embedder: str
    model: str
    revision: str
    dimension: int

    @property
    def description(self) -> str:
        """For people: `local all-MiniLM-L6-v2 (384 dimensions)`."""
        return f"{self.embedder} {self.model} ({self.dimension} dimensions)"


class TextEmbedder(Protocol):
    """Row i belongs to text i.

    `embed` raises `EmbedderUnavailable` if another attempt can help, `PageError` if it cannot.
    """

    async def embed(self, texts: Sequence[str]) -> Vectors: ...


class Embedder(TextEmbedder, Protocol):
    @property
    def identity(self) -> EmbedderIdentity: ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Counts tokens as the model does, without padding and truncation."""
        ...

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of a text; the model does not see what is beyond."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class PartEmbedder(Protocol):
    """An embedder that knows what each part of a text says too."""

    async def embed_in_parts(self, texts: Sequence[str]) -> tuple[Vectors, list[str]]:
        """The vectors of `embed`, and the parts of each text as `pack_parts` packs them."""
        ...
