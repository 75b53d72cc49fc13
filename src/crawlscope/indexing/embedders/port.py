"""The port to whatever turns text into dense vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]
"""Shape (texts, dimension), each row of length 1."""


@dataclass(frozen=True)
class EmbedderIdentity:
    """Which vectors may be compared with each other: those of one identity."""

    embedder: str
    model: str
    revision: str
    dimension: int

    @property
    def fingerprint(self) -> str:
        return f"{self.embedder}:{self.model}:{self.revision}:{self.dimension}"


class TextEmbedder(Protocol):
    """Order is kept: row i belongs to text i.

    `embed` raises `EmbedderUnavailable` when another try can help, `PageError` when it cannot.
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
        """The longest text, in tokens, of which the model sees all."""
        ...

    async def aclose(self) -> None: ...
