"""Words that follow each other, to be found in a text word for word."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from crawlscope.indexing.unspaced import ngrams

MIN_LONG_CHARACTERS = 20
"""Too many texts contain shorter phrases by chance."""
MAX_NAME_WORDS = 4
"""`CVE-2024-3094`, `127.0.0.1`."""

_LINK_TARGET = re.compile(r"\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_WORD = re.compile(r"[^\W_]+")
_BETWEEN = r"[\W_]+"
_SITE_NAME = re.compile(r"\s[|–—·»-]\s.*", re.DOTALL)


@dataclass(frozen=True)
class Phrase:
    """Without case, width, punctuation, Markdown and the targets of links."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(tuple(_WORD.findall(_separated(_folded(text)))))

    @property
    def is_distinctive(self) -> bool:
        """Whether a text that contains it is probably meant: a long phrase, or a name such as `PEP 405`."""
        is_name = 1 < len(self.words) <= MAX_NAME_WORDS and any(map(str.isdecimal, self.words))
        return is_name or len(" ".join(self.words)) >= MIN_LONG_CHARACTERS

    def is_in(self, text: str) -> bool:
        folded = _folded(text)
        return self._may_be_in(folded) and self._pattern.search(_separated(folded)) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Begins with a word, which makes it several times as fast."""
        first, *others = self.words
        return re.compile(
            rf"{first}(?<![^\W_]{first}){''.join(_BETWEEN + word for word in others)}(?![^\W_])"
        )

    def is_title(self, title: str) -> bool:
        """Whether it is the whole title, or its part before the name of the site."""
        if not self._may_be_in(_folded(title)):
            return False
        words = Phrase.of(title).words
        return self.words in (words, Phrase.of(_SITE_NAME.sub("", title)).words)

    def _may_be_in(self, folded: str) -> bool:
        """False for most texts, and ten times as fast."""
        return bool(self.words) and all(map(folded.__contains__, self._longest_first))

    @cached_property
    def _longest_first(self) -> list[str]:
        """The longer a word, the fewer texts contain it."""
        return sorted(self.words, key=len, reverse=True)


def _folded(text: str) -> str:
    """Without case and width."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _separated(folded: str) -> str:
    """Without the targets of links; in scripts without spaces, each character is a word."""
    return ngrams(_LINK_TARGET.sub("]", folded), 1)
