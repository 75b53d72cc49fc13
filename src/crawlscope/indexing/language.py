"""The language of a text: by its declared tag, in any spelling, by its script, or by its words."""

import re
import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crawlscope.indexing.language_model import identifier

_PRIMARY = re.compile(r"[\s\"'\[]*([A-Za-z]{2,3})(?![A-Za-z])")
_NO_LANGUAGE = {"und", "zxx", "mul", "mis"}
_SAME = {"iw": "he", "in": "id", "ji": "yi", "nb": "no", "nn": "no"}

_MAX_CHARACTERS = 6_000
"""More change the language of no page of seven collections and a documentation, and take twice the time."""
_MAX_CHARACTERS_FOR_SCRIPT = 2_000
_MIN_LETTERS = 100
_MIN_IDEOGRAMS = 40
_MIN_PROBABILITY = 0.7
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*$", re.MULTILINE | re.DOTALL)
_NO_WORDS = [
    re.compile(pattern)
    for pattern in (r"`(?<![\W\d_]`)[^`\n]*`", r"\](?<![\W\d_]\])\([^()\s]*\)", r"https?://\S+")
]
"""Code and targets of links, right after a letter, and URLs."""
_WORDS = re.compile(r"[^\W\d_]+")
_ASCII_WORDS = {code: " " for code in range(128) if chr(code) not in string.ascii_letters}
_SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "lo": re.compile(r"[\u0e80-\u0eff]"),
    "km": re.compile(r"[\u1780-\u17ff]"),
    "zh": re.compile(r"[\u3400-\u9fff]"),
}
"""Scripts of one language each, apart from Chinese characters, which are Japanese beside syllables."""
_MIN_SYLLABLES = 0.05
"""The least share of Japanese syllables among the characters of a Japanese text."""
ENGLISH = "en"
_COVERED = 0.99
_MAX_LIKELY = 4
_CLEAR_ODDS = 20.0
"""As a logarithm. Misspelt English hardly ever seems so much more like another language, and a question in
Spanish or Chinese nearly always does.
"""


def primary_language(tag: str | None) -> str:
    """`en` for `en-US`, `EN`, `en_us.UTF-8` or `en, de`. Documents store this, and filters compare it.

    Empty if the tag names no language: `x-default`, `German`.
    """
    found = _PRIMARY.match(tag or "")
    if found is None or (primary := found[1].lower()) in _NO_LANGUAGE:
        return ""
    return _SAME.get(primary, primary)


def language_of(markdown: str, data_dir: Path | None = None) -> str:
    """A primary language tag such as `en`; empty for short texts, code, and texts in several languages.

    Blocks, so call it in a thread. The first call loads the model, whose tables all processes of a data
    folder share.
    """
    text = markdown[:_MAX_CHARACTERS]
    if "```" in text or "~~~" in text:
        text = _CODE.sub(" ", text)
    for pattern in _NO_WORDS:
        text = pattern.sub(" ", text)
    text = " ".join(text.translate(_ASCII_WORDS).split() if text.isascii() else _WORDS.findall(text))
    by_script = language_of_script(text)
    if len(text) < (_MIN_IDEOGRAMS if by_script else _MIN_LETTERS):
        return ""
    if by_script:
        return by_script
    (language, probability), *halves = identifier(data_dir).whole_and_halves(text)
    agreed = probability >= _MIN_PROBABILITY and all(half == language for half, _ in halves)
    return primary_language(language) if agreed else ""


def language_of_script(text: str) -> str:
    """The language of a text of which more than half is in the script of one language, else empty."""
    text = text[:_MAX_CHARACTERS_FOR_SCRIPT]
    if text.isascii():
        return ""
    found = {language: len(script.findall(text)) for language, script in _SCRIPTS.items()}
    if found["ja"] > _MIN_SYLLABLES * found["zh"]:
        found["ja"] += found.pop("zh")
    language = max(found, key=lambda each: found[each])
    return language if 2 * found[language] > sum(map(str.isalpha, text)) else ""


def is_in_none(query: str, documents: Mapping[str, int], data_dir: Path | None = None) -> bool:
    """Whether the query, by its words, is clearly in no language of the index, even if it is misspelt.

    `documents` as for `likely_languages`. Blocks, and may load the model.
    """
    languages = _counted(documents).keys()
    scores = _scores(query, data_dir)
    if not languages <= scores.keys():
        return False
    return max(scores.values()) - max(scores[language] for language in languages) > _CLEAR_ODDS


def likely_languages(query: str, documents: Mapping[str, int], data_dir: Path | None = None) -> list[str]:
    """The languages of an index in which the query may be, the likeliest first; at most four, and one if its
    words are clear.

    `documents` is the number of documents of each language, `""` for those of unknown language, which count
    as English. Blocks, and may load the model, if they have several languages.
    """
    if by_script := language_of_script(query):
        return [by_script]
    counts = _counted(documents)
    if len(counts) == 1:
        return list(counts)
    likely, covered = list[str](), 0.0
    for language, probability in _ranked(query, counts, data_dir):
        likely.append(language)
        covered += probability
        if covered >= _COVERED or len(likely) == _MAX_LIKELY:
            break
    return likely


def _counted(documents: Mapping[str, int]) -> dict[str, int]:
    """Those of unknown language as English, of which there is one at least if there are no others."""
    counts = {language: count for language, count in documents.items() if language and count}
    if unknown := documents.get("") or not counts:
        counts[ENGLISH] = counts.get(ENGLISH, 0) + unknown
    return counts


def _ranked(text: str, documents: Mapping[str, int], data_dir: Path | None) -> list[tuple[str, float]]:
    """These languages with their probabilities, the likeliest first.

    The square roots of the documents' numbers are the odds before the first word: so a language of few
    documents has a chance, and one that the model does not know the same as before.
    """
    scores = _scores(text, data_dir)
    unknown = float(np.mean([*scores.values()]))
    odds = np.array([scores.get(language, unknown) for language in documents])
    odds += 0.5 * np.log([*documents.values()])
    shares = np.exp(odds - odds.max())
    ranking = zip(documents, (shares / shares.sum()).tolist(), strict=True)
    return sorted(ranking, key=lambda ranked: -ranked[1])


def _scores(text: str, data_dir: Path | None) -> dict[str, float]:
    """The logarithm of the odds of each language that the model knows."""
    return {primary_language(tag): score for tag, score in identifier(data_dir).scores(text).items()}
