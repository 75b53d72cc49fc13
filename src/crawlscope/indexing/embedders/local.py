"""Embeds on this computer with the model that is installed as a package: no service, no download."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from crawlscope_minilm import DIMENSION, MAX_TOKENS, MODEL_NAME, MODEL_PATH, MODEL_SHA256
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from crawlscope.core.errors import SettingsError
from crawlscope.indexing.embedders.common import SPECIAL_TOKENS, encodable, load_minilm_tokenizer
from crawlscope.indexing.embedders.fair_pool import FairThreadPool
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors

SLOW_FUSION = "SkipLayerNormFusion"
"""An optimisation of the runtime that costs a fifth of the speed on a CPU."""


class LocalEmbedder:
    """Embeds `threads` texts at once, each in a run of its own on one thread.

    The int8 model takes the range of its activations from all texts of a run, so in a batch a text's vector
    would depend on the other texts. All threads share one session, because two would be no faster.
    """

    def __init__(self, threads: int = 1) -> None:
        """Takes about 0.15 s. Raises `SettingsError` if the model's file is missing or damaged."""
        _verify_model()
        options = SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # The memory arena would keep the peak of the longest text for good, and is no faster.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self._session = InferenceSession(
            str(MODEL_PATH),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[SLOW_FUSION],
        )
        self._tokenizer = load_minilm_tokenizer()
        self._pool = FairThreadPool(threads)

    @property
    def identity(self) -> EmbedderIdentity:
        return EmbedderIdentity("local", MODEL_NAME, MODEL_SHA256[:12], DIMENSION)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        return MAX_TOKENS - SPECIAL_TOKENS

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = await self._pool.map(self._embed_one, texts)
        return np.stack(rows) if rows else np.empty((0, DIMENSION), np.float32)

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _embed_one(self, text: str) -> npt.NDArray[np.float32]:
        ids = self._tokenizer.encode(encodable(text)).ids
        if len(ids) > MAX_TOKENS:
            ids = [*ids[: MAX_TOKENS - 1], ids[-1]]
        tokens = np.array([ids], np.int64)
        (hidden,) = self._session.run(None, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
        mean = np.asarray(hidden, np.float32)[0].mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _verify_model() -> None:
    """A file that is damaged by a download or checkout would fail during a crawl, or give wrong vectors."""
    try:
        with MODEL_PATH.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = ""
    if digest != MODEL_SHA256:
        raise SettingsError(
            f"The model file {MODEL_PATH} is missing or damaged: reinstall the package crawlscope-minilm."
        )
