"""The model of py3langid, which detects languages by their words. All processes share its tables.

The tables are 70 MB. The first process that needs them writes them to the data folder, and each maps those
files: so their memory counts once, and opening them takes milliseconds instead of a second.
"""

import lzma
import os
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from py3langid.langid import MODEL_DIR, MODEL_FILE

from crawlscope.core.file_lock import FileLock

_PARTS = 512
_MEMORY = 6
"""Bytes in the longest feature of the model."""
LIBRARY = "py3langid"
TABLES = ("classes", "pc", "ptc", "nextmove", "nextmove_row", "out_feat")
"""The classes, their weights, the weights of the features, and the automaton that finds the features."""
Tables = Mapping[str, npt.NDArray[Any]]

log = structlog.get_logger(__name__)


class Identifier:
    """Detects languages as py3langid does, but reads a text in many parts at once, in a fifth of the time.

    Languages are the tags of the model, such as `en` or `nb`.
    """

    def __init__(self, tables: Tables) -> None:
        self._classes: list[str] = tables["classes"].tolist()
        self._weights, self._first = tables["ptc"], tables["pc"]
        self._moves = tables["nextmove"]
        self._rows = np.asarray(tables["nextmove_row"], np.intp) << 8
        self._features = np.asarray(tables["out_feat"])
        numbers = {name: number for number, name in reversed([*enumerate(self._classes)])}
        self._same = [(numbers[name], n) for n, name in enumerate(self._classes) if numbers[name] != n]
        """Two classes are one language in two scripts."""

    def whole_and_halves(self, text: str) -> list[tuple[str, float]]:
        """The language and its probability, of the text, of its first half and of its second half, which
        begins with a space; of the text alone if it has no such space. Reads each part of the text once.
        """
        middle = text.find(" ", len(text) // 2)
        encoded, first = _encode(text), _encode(text[: max(middle, 0)])
        found, after = self._found(encoded), len(first)
        parts, lengths = [found], [len(encoded)]
        if middle > 0:
            # The first half has no influence on the features that are found further down.
            beginning = self._found(encoded[after : after + _MEMORY])
            second = np.concatenate([beginning, found[after + _MEMORY :]])
            parts, lengths = [found, found[:after], second], [*lengths, after, len(second)]
        scores = self._scores(parts) / np.sqrt(np.maximum(lengths, 1))[:, np.newaxis]
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        for one, other in self._same:
            shares[:, one] += shares[:, other]
            shares[:, other] = 0.0
        best = shares.argmax(axis=1)
        return [(self._classes[each], float(row[each])) for each, row in zip(best, shares, strict=True)]

    def scores(self, text: str) -> dict[str, float]:
        """The logarithm of the odds of each language."""
        [scores] = self._scores([self._found(text.encode())])
        return dict(zip(self._classes, scores.tolist(), strict=True))

    def _scores(self, parts: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[Any]:
        """The score of each part in each class, by the features that were found in it; equal if none was."""
        parts = [found[found >= 0] for found in parts]
        is_found = np.zeros(len(self._weights), np.bool_)
        for found in parts:
            is_found[found] = True
        features = is_found.nonzero()[0]
        numbers = np.empty(len(self._weights), np.int32)
        numbers[features] = np.arange(len(features))
        weights = in_single_precision(self._weights.take(features, axis=0))
        counts = [np.bincount(numbers.take(found), minlength=len(features)) for found in parts]
        # Part by part: a product of two matrices would take several threads, which wait for each other.
        return np.stack(
            [np.log1p(each.astype(np.float32)) @ weights + each.any() * self._first for each in counts]
        )

    def _found(self, text: bytes) -> npt.NDArray[np.int32]:
        """The feature that the automaton of the model finds at each byte of the text, -1 for none.

        The state of the automaton depends on the last `_MEMORY` bytes only, so each part can begin that much
        earlier in any state.
        """
        length = max(1, -(-len(text) // _PARTS))
        padded = np.zeros(_MEMORY + _PARTS * length, np.uint8)
        padded[_MEMORY : _MEMORY + len(text)] = np.frombuffer(text, np.uint8)
        parts = np.lib.stride_tricks.sliding_window_view(padded, _MEMORY + length)[::length]
        state: npt.NDArray[Any] = np.zeros(_PARTS, np.intp)
        states = np.empty((_MEMORY + length, _PARTS), np.intp)
        for step, letters in enumerate(np.ascontiguousarray(parts.T)):
            state = self._moves.take(self._rows.take(state) + letters)
            if step == _MEMORY - 1:
                state[0] = 0  # nothing is before the first part
            states[step] = state
        return self._features.take(states[_MEMORY:].T.ravel()[: len(text)])


@lru_cache(maxsize=1)
def identifier(data_dir: Path | None = None) -> Identifier:
    """Blocks. The first call in a data folder takes a second, as each does that has none."""
    if data_dir is None:
        return Identifier(_read())
    return Identifier(shared_tables(data_dir / "cache" / f"{LIBRARY}-{version(LIBRARY)}"))


def shared_tables(folder: Path) -> Tables:
    """Mapped from the files of `folder`, which is made if it is missing; in memory if it cannot be."""
    try:
        if not folder.exists():
            _write(folder)
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in TABLES}
    except (OSError, ValueError, EOFError) as error:
        log.info("language_model_not_shared", folder=str(folder), reason=str(error))
        return _read()


def _write(folder: Path) -> None:
    """All or nothing. Removes the tables of other versions, and files that a killed process left."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f"{LIBRARY}.lock")
    lock.wait_exclusive()
    try:
        if folder.exists():
            return  # another process was first
        for other in folder.parent.glob(f"{LIBRARY}-*"):
            shutil.rmtree(other)
        staging = folder.with_name(f"{folder.name}-incomplete")
        staging.mkdir()
        for name, table in _read().items():
            with (staging / f"{name}.npy").open("wb") as file:
                np.save(file, table)
                file.flush()
                os.fsync(file.fileno())
        staging.rename(folder)
    finally:
        lock.release()


def _read() -> Tables:
    with np.load(BytesIO(lzma.decompress(Path(MODEL_DIR, MODEL_FILE).read_bytes()))) as stored:
        return dict(stored)


def in_single_precision(halves: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """The same numbers, in half of the time of NumPy's conversion: the bits of exponent and fraction move to
    their places, and the product corrects the exponent."""
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70000001)  # without copies of the sign
    numbers = bits.view(np.float32)
    numbers *= np.float32(2.0**112)
    return numbers


def _encode(text: str) -> bytes:
    return unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode()
