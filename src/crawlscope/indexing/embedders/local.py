"""Embeds on this computer, with the model that ships as a package: no service, no download."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from crawlscope_minilm import DIMENSION, MAX_TOKENS, MODEL_NAME, MODEL_PATH, MODEL_SHA256
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from crawlscope.errors import SettingsError
from crawlscope.indexing.embedders.texts import SPECIAL_TOKENS, encodable, load_minilm_tokenizer
from crawlscope.indexing.embedding import EmbedderIdentity, Vectors

TEXTS_PER_TURN = 4
"""How many texts a thread takes at once: handing over single ones wakes the event loop for each."""
SLOW_FUSION = "SkipLayerNormFusion"
"""An optimisation of the runtime that costs a fifth of the speed on a CPU."""


class LocalEmbedder:
    """`threads` texts are embedded at once, each alone on one thread.

    Alone, because the int8 model takes the range of its activations from all texts of a run: in a batch a
    text would get another vector in other company. All threads share one session: two would be no faster.
    """

    def __init__(self, threads: int = 1) -> None:
        """Takes about 0.15 s; raises `SettingsError` when the model's file is not what it should be."""
        _verify_model()
        self._session = InferenceSession(
            str(MODEL_PATH),
            _one_thread(),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[SLOW_FUSION],
        )
        self._tokenizer = load_minilm_tokenizer()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")

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
        loop = asyncio.get_running_loop()
        groups = [texts[start : start + TEXTS_PER_TURN] for start in range(0, len(texts), TEXTS_PER_TURN)]
        done = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._embed_each, group) for group in groups)
        )
        rows = [row for group in done for row in group]
        return np.stack(rows) if rows else np.empty((0, DIMENSION), np.float32)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _embed_each(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return [self._embed_one(text) for text in texts]

    def _embed_one(self, text: str) -> npt.NDArray[np.float32]:
        ids = self._tokenizer.encode(encodable(text)).ids
        if len(ids) > MAX_TOKENS:
            ids = [*ids[: MAX_TOKENS - 1], ids[-1]]
        tokens = np.array([ids], np.int64)
        (hidden,) = self._session.run(None, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
        mean = np.asarray(hidden, np.float32)[0].mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _verify_model() -> None:
    """A file damaged in a download or a checkout would fail in mid-crawl, or give wrong vectors."""
    try:
        with MODEL_PATH.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = ""
    if digest != MODEL_SHA256:
        raise SettingsError(
            f"The model file {MODEL_PATH} is missing or damaged: reinstall the package crawlscope-minilm."
        )


def _one_thread() -> SessionOptions:
    """Without the memory arena, which keeps the peak of the longest text for good and gains no speed."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options
