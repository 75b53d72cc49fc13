"""Properties of embedding models by their names: the words before their texts, and the languages that they
read."""

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from crawlscope.indexing.language import ENGLISH

LOCAL_MODELS = ("all-MiniLM-L6-v2", "multilingual-e5-small")
"""The models of the local embedder, the default first."""
PAGE_SHARE = 0.3
MIN_UNREAD = 5
MIN_UNREAD_SHARE = 0.1
"""Fewer documents, and a smaller share of them, are no reason for another model."""
MAX_NAMED = 4

_E5 = re.compile(r"(?:^|[/-])e5-(?:small|base|large)(?:-v2)?$", re.IGNORECASE)
"""Models that are trained on texts with a word before them."""
_ENGLISH_ONLY = re.compile(
    r"all-minilm|all-mpnet|multi-qa-|msmarco-|(?:^|[/_-])en(?:[._-]|$)|(?:^|/)e5-|gte-(?:small|base|large)$",
    re.IGNORECASE,
)


def local_model(model: str | None) -> str:
    """The local embedder's name of a model, which may be given with its publisher; the default for None."""
    name = (model or LOCAL_MODELS[0]).rpartition("/")[2]
    return next((each for each in LOCAL_MODELS if each.casefold() == name.casefold()), name)


class TextPrefixes(NamedTuple):
    query: str = ""
    passage: str = ""


@cache
def text_prefixes(model: str) -> TextPrefixes:
    """The words that the model needs before the text of a query, and before the text of a chunk."""
    return TextPrefixes("query: ", "passage: ") if _E5.search(model) else TextPrefixes()


@cache
def page_share(model: str) -> float:
    """The share of a page's mean vector in the vector of each of its chunks.

    None with E5: all its vectors have so much in common that a mean says little of one page.
    """
    return 0.0 if _E5.search(model) else PAGE_SHARE


def unread_notice(model: str, documents: Mapping[str, int]) -> str | None:
    """The notice that many documents are in languages that the model does not read, with the setting to
    change; else None.

    `documents` is the number of documents of each language.
    """
    unread = {language: count for language, count in documents.items() if not reads(model, language)}
    found, total = sum(unread.values()), sum(documents.values())
    if found < MIN_UNREAD or found < MIN_UNREAD_SHARE * total:
        return None
    languages = ", ".join(sorted(unread, key=lambda language: -unread[language])[:MAX_NAMED])
    return (
        f"{found:,} of {total:,} pages are in languages that {model} does not read ({languages}): semantic "
        "search hardly finds them. Run `pip install 'crawlscope[multilingual]'`, set "
        f"CRAWLSCOPE_EMBEDDER=local and CRAWLSCOPE_EMBEDDER_MODEL={LOCAL_MODELS[1]}, then run "
        "`crawlscope reindex`"
    )


def reads(model: str, language: str) -> bool:
    """Whether the model was trained on the language, a primary tag. Unknown models read every language, and
    every model reads a text of unknown language."""
    return language in ("", ENGLISH) or not _ENGLISH_ONLY.search(model)
