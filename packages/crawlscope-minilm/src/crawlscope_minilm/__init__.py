"""The all-MiniLM-L6-v2 sentence embedding model as files: where they lie and what they are.

Importing this package loads nothing. MODEL.md beside the files says where they come from.
"""

from pathlib import Path
from typing import Final

MODEL_NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
"""The name of the float model these int8 weights were made from."""

MODEL_PATH: Final = Path(__file__).with_name("model.onnx")
"""Takes `input_ids` and `attention_mask` (int64, texts × tokens), gives `last_hidden_state` (float32)."""

TOKENIZER_PATH: Final = Path(__file__).with_name("tokenizer.json")
"""As published, with its fixed padding and truncation at 128 tokens: whoever loads it resets both."""

MODEL_SHA256: Final = "67f5b5bc7ec1c52cefacaf6162e976799ae09ff413df0021f53e34fbf5234be5"

TOKEN_WEIGHTS_PATH: Final = Path(__file__).with_name("token_weights.npy")
"""How much each token of the vocabulary counts in the vector of a text (float16): frequent ones less."""

DIMENSION: Final = 384

MAX_TOKENS: Final = 256
"""The longest text, special tokens included, that the model was trained for."""

__all__ = [
    "DIMENSION",
    "MAX_TOKENS",
    "MODEL_NAME",
    "MODEL_PATH",
    "MODEL_SHA256",
    "TOKENIZER_PATH",
    "TOKEN_WEIGHTS_PATH",
]
