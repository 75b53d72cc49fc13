"""Scripts that do not separate words by spaces."""

import re

UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # Japanese and Chinese syllables, iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # Chinese characters
    "\uac00-\ud7a3"  # Korean: words have spaces between them, but particles stick to nouns
    "]+"
)
"""Runs of scripts that do not separate words by spaces."""


def ngrams(text: str, size: int) -> str:
    """Separates the n-grams of scripts without spaces; a run that is shorter stays as it is."""

    if text.isascii():
        return text

    def split(run: re.Match[str]) -> str:
        grams = [run[0][start : start + size] for start in range(len(run[0]) - size + 1)]
        return f" {' '.join(grams) or run[0]} "

    return UNSPACED.sub(split, text)
