"""Reads a query: words, phrases in quotation marks, and exclusions."""

import re
from dataclasses import dataclass
from typing import Self

from crawlscope.indexing.phrase import Phrase

_OPERATOR = re.compile(
    r"(?P<minus>(?<!\S)-)?(?<!\w)[\"“„«](?P<phrase>[^\"“”„«»]*)[\"“”»](?!\w)"
    r"|(?<!\S)-(?P<word>[^\W\d_][^\s\"“”„«»]+)"
)
"""`"two words"`, `-"two words"`, `-word`. No operator is the quotation mark of `3.5"`, nor the hyphen of
`well-known`, `-x` or `--option`.
"""


@dataclass(frozen=True)
class ParsedQuery:
    text: str
    """The text to search for, without quotation marks and without exclusions."""
    required: tuple[str, ...] = ()
    """Phrases that a page must contain word for word."""
    excluded: tuple[str, ...] = ()
    """Words and phrases that it must not contain."""

    @classmethod
    def of(cls, query: str) -> Self:
        """A query that only excludes is taken as it stands: there would be nothing to look for."""
        required, excluded = list[str](), list[str]()

        def read(operator: re.Match[str]) -> str:
            content = operator["word"] or operator["phrase"]
            if not Phrase.of(content).words:
                return operator[0]
            if operator["word"] or operator["minus"]:
                excluded.append(content)
                return ""
            required.append(content)
            return content

        text = " ".join(_OPERATOR.sub(read, query).split())
        return cls(text, tuple(required), tuple(excluded)) if Phrase.of(text).words else cls(query)
