"""Which language a text is said to be in, however that is spelled."""

import re

_PRIMARY = re.compile(r"[\s\"'\[]*([A-Za-z]{2,3})(?![A-Za-z])")
_NO_LANGUAGE = {"und", "zxx", "mul", "mis"}
_FORMER = {"iw": "he", "in": "id", "ji": "yi"}


def primary_language(tag: str | None) -> str:
    """`en` of `en-US`, `EN`, `en_us.UTF-8` or `en, de`: what is kept and what filters compare.

    Empty for what names no language: `x-default`, `German`.
    """
    found = _PRIMARY.match(tag or "")
    if found is None or (primary := found[1].lower()) in _NO_LANGUAGE:
        return ""
    return _FORMER.get(primary, primary)
