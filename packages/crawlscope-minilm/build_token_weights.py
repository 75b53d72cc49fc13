"""Builds the package's token weights from texts that every installation of Python has.

    python build_token_weights.py

A token that stands in nearly every passage, such as a comma, `the` or `self`, says little about one of them.
Its weight is a / (a + p), where p is the share of passages that contain it (SIF, Arora et al. 2017). The
passages are those of the standard library's modules, and of the documentation of Python's language; the
larger share counts, so a token that is frequent in code is light in prose too.
"""

# ruff: noqa: T201  # a script that people run by hand tells them what it made

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

PACKAGE = Path(__file__).parent / "src" / "crawlscope_minilm"
PASSAGE_TOKENS = 150
EVENNESS = 0.5
"""The `a` of the formula: a token of every passage has a third of the weight of a token of none."""
SPECIAL = ("[CLS]", "[SEP]")
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages"}


def shares(texts: Iterable[str], tokenizer: Tokenizer) -> npt.NDArray[np.float64]:
    """The share of passages that contain each token of the vocabulary."""
    containing, passages = np.zeros(tokenizer.get_vocab_size()), 0
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for start in range(0, len(ids), PASSAGE_TOKENS):
            containing[list(set(ids[start : start + PASSAGE_TOKENS]))] += 1
            passages += 1
    print(f"{passages} passages")
    return containing / passages


def modules() -> Iterable[str]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not LEFT_OUT.intersection(path.relative_to(library).parts):
            yield path.read_text(encoding="utf-8", errors="ignore")


def main() -> None:
    tokenizer = Tokenizer.from_file(str(PACKAGE / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    share = np.maximum(shares(modules(), tokenizer), shares(topics.values(), tokenizer))
    share[[tokenizer.token_to_id(token) for token in SPECIAL]] = 1
    weights = (EVENNESS / (EVENNESS + share)).astype(np.float16)
    np.save(PACKAGE / "token_weights.npy", weights)
    print(f"{len(weights)} weights, the lowest {weights.min():.2f}")


if __name__ == "__main__":
    main()
