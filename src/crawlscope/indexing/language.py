"""The language of a text: by its declared tag, in any spelling, by its script, or by its words."""

import re
import string
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from py3langid.langid import MODEL_FILE, LanguageIdentifier

_PRIMARY = re.compile(r"[\s\"'\[]*([A-Za-z]{2,3})(?![A-Za-z])")
_NO_LANGUAGE = {"und", "zxx", "mul", "mis"}
_SAME = {"iw": "he", "in": "id", "ji": "yi", "nb": "no", "nn": "no"}

_MAX_CHARACTERS = 20_000
_MAX_CHARACTERS_FOR_SCRIPT = 2_000
_MIN_LETTERS = 100
_MIN_IDEOGRAMS = 40
_MIN_PROBABILITY = 0.7
_PARTS = 512
_MEMORY = 6
"""Bytes in the longest feature of the model."""
_SINGLE = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""All numbers of half precision, because looking them up is twice as fast as NumPy's conversion."""
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
    (language, probability), *halves = _identifier().whole_and_halves(text)
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


def likely_languages(query: str, documents: Mapping[str, int]) -> list[str]:
    """The languages of an index in which the query may be, the likeliest first; at most four, and one if its
    words tell.

    `documents` is the number of documents of each language, `""` for those of unknown language, which count
    as English. Blocks, and may load the model, if they have several languages.
    """
    if by_script := language_of_script(query):
        return [by_script]
    counts = {language: count for language, count in documents.items() if language and count}
    if unknown := documents.get("") or not counts:
        counts[ENGLISH] = counts.get(ENGLISH, 0) + unknown
    if len(counts) == 1:
        return list(counts)
    likely, covered = list[str](), 0.0
    for language, probability in _identifier().ranked(query, counts):
        likely.append(language)
        covered += probability
        if covered >= _COVERED or len(likely) == _MAX_LIKELY:
            break
    return likely


class Identifier(LanguageIdentifier):  # type: ignore[misc]
    """Classifies like its base class, but reads a text in many parts at once, in a fifth of the time."""

    __slots__ = ("_features", "_moves", "_rows")

    def __init__(self, *model: Any, tk_row: Any, **options: Any) -> None:
        super().__init__(*model, tk_row=tk_row, **options)
        self._moves = np.frombuffer(self.tk_nextmove, np.dtype(self.tk_nextmove.typecode))
        self._rows = np.asarray(self.tk_row, np.intp) << 8
        self._features = np.asarray(self.tk_output, np.int32)

    def ranked(self, text: str, documents: Mapping[str, int]) -> list[tuple[str, float]]:
        """These languages with their probabilities, the likeliest first.

        The square roots of the documents' numbers are the odds before the first word: so a language of few
        documents has a chance, and one that the model does not know the same as before.
        """
        scores = dict(
            zip(map(primary_language, self.nb_classes), self._raw_score(text.encode()), strict=True)
        )
        unknown = float(np.mean([*scores.values()]))
        odds = np.array([float(scores.get(language, unknown)) for language in documents])
        odds += 0.5 * np.log([*documents.values()])
        shares = np.exp(odds - odds.max())
        ranking = zip(documents, (shares / shares.sum()).tolist(), strict=True)
        return sorted(ranking, key=lambda ranked: -ranked[1])

    def whole_and_halves(self, text: str) -> list[tuple[str, float]]:
        """What `classify` says of the text, of its first half and of its second half, which begins with a
        space; of the text alone if it has no such space. Reads and weighs each part of the text once.
        """
        middle = text.find(" ", len(text) // 2)
        encoded, first = self._encode(text), self._encode(text[: max(middle, 0)])
        found, after = self._found(encoded), len(first)
        parts, lengths = [found], [len(encoded)]
        if middle > 0:
            # What stands in the first half has no influence on what is found further down.
            beginning = self._found(encoded[after : after + _MEMORY])
            second = np.concatenate([beginning, found[after + _MEMORY :]])
            parts, lengths = [found, found[:after], second], [*lengths, after, len(second)]
        scores = self._scores(parts) / np.sqrt(lengths)[:, np.newaxis]
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        for one, other in self._alias_pairs:
            shares[:, one] += shares[:, other]
            shares[:, other] = 0.0
        best = shares.argmax(axis=1)
        return [(self.nb_classes[each], float(row[each])) for each, row in zip(best, shares, strict=True)]

    def _raw_score(self, text: bytes) -> Any:
        return self._scores([self._found(text)])[0]

    def _scores(self, parts: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[Any]:
        """Of each part in each language, by the features that were found in it; equal if none was."""
        parts = [found[found >= 0] for found in parts]
        is_found = np.zeros(len(self.nb_ptc), np.bool_)
        for found in parts:
            is_found[found] = True
        features = is_found.nonzero()[0]
        numbers = np.empty(len(self.nb_ptc), np.int32)
        numbers[features] = np.arange(len(features))
        weights = _SINGLE.take(self.nb_ptc.view(np.uint16).take(features, axis=0))
        counts = [np.bincount(numbers.take(found), minlength=len(features)) for found in parts]
        # Part by part: a product of two matrices would take several threads, which wait for each other.
        return np.stack(
            [np.log1p(each.astype(np.float32)) @ weights + each.any() * self.nb_pc for each in counts]
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


@cache
def _identifier() -> Identifier:
    identifier: Identifier = Identifier.from_model_file(MODEL_FILE, norm_probs=True)
    return identifier
