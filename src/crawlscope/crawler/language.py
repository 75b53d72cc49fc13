"""Which language a text is in, where its page does not say."""

import re
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_LOOKED_AT = 20_000
_LEAST_LETTERS = 100
_LEAST_IDEOGRAMS = 40
_SURE = 0.99
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*$", re.MULTILINE | re.DOTALL)
_NO_WORDS = re.compile(r"`[^`\n]*`|\]\([^()\s]*\)|https?://\S+|[\W\d_]+")
_WIDE = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SAME = {"nb": "no", "nn": "no"}


def language_of(markdown: str) -> str | None:
    """A primary language tag such as `en`. None for short texts, code, and those in several languages."""
    text = _NO_WORDS.sub(" ", _CODE.sub(" ", markdown[:_LOOKED_AT])).strip()
    least = _LEAST_IDEOGRAMS if len(_WIDE.findall(text)) * 2 > len(text) else _LEAST_LETTERS
    if len(text) < least:
        return None
    middle = text.find(" ", len(text) // 2)
    halves = {_classify(text[:middle]), _classify(text[middle:])} if middle > 0 else {_classify(text)}
    return halves.pop() if len(halves) == 1 else None


def _classify(text: str) -> str | None:
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _SURE else None


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
