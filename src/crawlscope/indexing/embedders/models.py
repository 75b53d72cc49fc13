"""What the name of an embedding model says of it: the words before its texts, and the languages it reads."""

import re

from crawlscope.indexing.language import ENGLISH

LOCAL_MODELS = ("all-MiniLM-L6-v2", "multilingual-e5-small")
"""Of the local embedder, the default first."""

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


def query_text(model: str, query: str) -> str:
    """What is embedded of a query."""
    return f"query: {query}" if _E5.search(model) else query


def passage_text(model: str, passage: str) -> str:
    """What is embedded of a chunk."""
    return f"passage: {passage}" if _E5.search(model) else passage


def reads(model: str, language: str) -> bool:
    """Whether the model was trained on the language, a primary tag. Unknown models read every language, and
    every model reads a text of unknown language."""
    return language in ("", ENGLISH) or not _ENGLISH_ONLY.search(model)
