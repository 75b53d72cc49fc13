"""Embeds on this computer with a model that is installed as a package: no service, no download."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from crawlscope_minilm import DIMENSION, MAX_TOKENS, MODEL_NAME, MODEL_PATH, MODEL_SHA256
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from crawlscope.core.errors import SettingsError
from crawlscope.indexing.embedders.common import SPECIAL_TOKENS, encodable, load_minilm_tokenizer
from crawlscope.indexing.embedders.fair_pool import FairThreadPool
from crawlscope.indexing.embedders.models import LOCAL_MODELS, local_model
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors

SLOW_FUSION = "SkipLayerNormFusion"
"""An optimisation of the runtime that costs a fifth of the speed on a CPU."""


class LocalModel(Protocol):
    name: str
    revision: str
    dimension: int
    max_tokens: int
    """Maximum number of tokens of a text, with the special ones."""
    tokenizer: Tokenizer

    def run(self, ids: Sequence[int]) -> Any:
        """The hidden state of each token of one text: shape (1, tokens, dimension)."""
        ...


class MiniLm:
    """all-MiniLM-L6-v2: English. Opened in about 0.15 s."""

    name = MODEL_NAME
    revision = MODEL_SHA256[:12]
    dimension = DIMENSION
    max_tokens = MAX_TOKENS

    def __init__(self) -> None:
        """Raises `SettingsError` if the model's file is missing or damaged."""
        _verify_model()
        self._session = open_session(str(MODEL_PATH), session_options())
        self.tokenizer = load_minilm_tokenizer()

    def run(self, ids: Sequence[int]) -> Any:
        tokens = np.array([ids], np.int64)
        return self._session.run(None, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})[0]


class LocalEmbedder:
    """Embeds `threads` texts at once, each in a run of its own on one thread.

    An int8 model takes the range of its activations from all texts of a run, so in a batch a text's vector
    would depend on the other texts. All threads share one session, because two would be no faster.
    """

    def __init__(self, threads: int = 1, open_model: Callable[[], LocalModel] = MiniLm) -> None:
        """Raises `SettingsError` if the model cannot be opened."""
        self._model = open_model()
        self._pool = FairThreadPool(threads)

    @property
    def identity(self) -> EmbedderIdentity:
        model = self._model
        return EmbedderIdentity("local", model.name, model.revision, model.dimension)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._model.tokenizer

    @property
    def max_tokens(self) -> int:
        return self._model.max_tokens - SPECIAL_TOKENS

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = await self._pool.map(self._embed_one, texts)
        return np.stack(rows) if rows else np.empty((0, self._model.dimension), np.float32)

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _embed_one(self, text: str) -> npt.NDArray[np.float32]:
        ids = self._model.tokenizer.encode(encodable(text)).ids
        if len(ids) > self._model.max_tokens:
            ids = [*ids[: self._model.max_tokens - 1], ids[-1]]
        mean = np.asarray(self._model.run(ids), np.float32)[0].mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


def open_local(model: str | None, threads: int) -> LocalEmbedder:
    """By the model's name, with or without its publisher. Raises `SettingsError` for any other."""
    name = local_model(model)
    if name == LOCAL_MODELS[0]:
        return LocalEmbedder(threads)
    if name not in LOCAL_MODELS:
        raise SettingsError(
            f"CRAWLSCOPE_EMBEDDER_MODEL: the local embedder has no model {model}: "
            f"set {' or '.join(LOCAL_MODELS)}."
        )
    try:
        from crawlscope.indexing.embedders.e5 import MultilingualE5  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SettingsError(
            f"CRAWLSCOPE_EMBEDDER_MODEL={name} needs packages that are not installed: "
            "pip install 'crawlscope[multilingual]'."
        ) from None
    return LocalEmbedder(threads, MultilingualE5)


def session_options() -> SessionOptions:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The memory arena would keep the peak of the longest text for good, and is no faster.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def open_session(path: str, options: SessionOptions) -> InferenceSession:
    return InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=[SLOW_FUSION]
    )


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
