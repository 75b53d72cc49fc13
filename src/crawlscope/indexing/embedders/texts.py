"""What every embedder does with a text before the model sees it."""

from crawlscope_minilm import TOKENIZER_PATH
from tokenizers import Tokenizer

SPECIAL_TOKENS = 2
"""Put around each text by the models of this family, and counted in their limits."""


def load_minilm_tokenizer() -> Tokenizer:
    """The local model's tokenizer, made to count whole texts: its file says to cut and pad at 128 tokens."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_PATH))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encodable(text: str) -> str:
    """Half a surrogate pair, which JSON can bring and UTF-8 cannot carry, becomes a question mark."""
    return text.encode(errors="replace").decode()
