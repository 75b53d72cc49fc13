"""The multilingual-e5-small sentence embedding model for ONNX Runtime: graph and weights.

Importing this package loads nothing. MODEL.md beside this file says where graph and weights come from.
"""

from pathlib import Path
from typing import Final

from crawlscope_e5.weights import WEIGHTS_SHA256, Weights, find_weights

MODEL_NAME: Final = "intfloat/multilingual-e5-small"
"""The name of the float model whose weights these are."""

GRAPH_PATH: Final = Path(__file__).with_name("graph.onnx")
"""Takes `embeddings` (float32, texts × tokens × dimension), gives `hidden` of the same shape. Its weights are
external: `Weights.initializers` has them by name.
"""

REVISION: Final = f"{WEIGHTS_SHA256[:12]}-1"
"""Changes whenever the same text gets another vector."""

DIMENSION: Final = 384

MAX_TOKENS: Final = 512
"""The longest text, special tokens included, that the model has positions for."""

__all__ = ["DIMENSION", "GRAPH_PATH", "MAX_TOKENS", "MODEL_NAME", "REVISION", "Weights", "find_weights"]
