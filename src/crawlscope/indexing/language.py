"""The language of a text: by its declared tag, in any spelling, or by its words."""

import re
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_PRIMARY = re.compile(r"[\s\"'\[]*([A-Za-z]{2,3})(?![A-Za-z])")
_NO_LANGUAGE = {"und", "zxx", "mul", "mis"}
_SAME = {"iw": "he", "in": "id", "ji": "yi", "nb": "no", "nn": "no"}

_MAX_CHARACTERS = 20_000
_MIN_LETTERS = 100
_MIN_IDEOGRAMS = 40
_MIN_PROBABILITY = 0.99
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*$", re.MULTILINE | re.DOTALL)
_NO_WORDS = re.compile(r"`[^`\n]*`|\]\([^()\s]*\)|https?://\S+|[\W\d_]+")
_WIDE = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def primary_language(tag: str | None) -> str:
    """`en` for `en-US`, `EN`, `en_us.UTF-8` or `en, de`. Documents store this, and filters compare it.

    Empty if the tag names no language: `x-default`, `German`.
    """
    found = _PRIMARY.match(tag or "")
    if found is None or (primary := found[1].lower()) in _NO_LANGUAGE:
        return ""
    return _SAME.get(primary, primary)


def language_of(markdown: str) -> str:
    """A primary language tag such as `en`; empty for short texts, code, and texts in several languages.

    Blocks, so call it in a thread. The first call takes seconds and 70 MB to load the model.
    """
    text = _NO_WORDS.sub(" ", _CODE.sub(" ", markdown[:_MAX_CHARACTERS])).strip()
    min_characters = _MIN_IDEOGRAMS if len(_WIDE.findall(text)) * 2 > len(text) else _MIN_LETTERS
    if len(text) < min_characters:
        return ""
    middle = text.find(" ", len(text) // 2)
    halves = {_classify(text[:middle]), _classify(text[middle:])} if middle > 0 else {_classify(text)}
    return primary_language(halves.pop()) if len(halves) == 1 else ""


def _classify(text: str) -> str | None:
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _MIN_PROBABILITY else None


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
