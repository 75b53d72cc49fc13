"""Values that PostgreSQL can hold: text without NUL and lone surrogates, keys short enough for an index."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import repeat
from typing import Any
from uuid import UUID

MAX_CACHED_CHARACTERS = 2_048
REPLACEMENT = "�"
_BACKSLASH_OR_NUL = re.compile(r"\\(?:(?P<backslash>\\)|u0000)")
"""As JSON escapes them: after an escaped backslash, `u0000` is text."""


def storable(text: str) -> str:
    """The text with U+FFFD for characters that PostgreSQL refuses (NUL, lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\x00", REPLACEMENT)


def storable_json(value: object) -> str:
    """JSON that PostgreSQL can hold; what has no JSON form becomes its text, NaN and infinity null."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False)
    except ValueError:
        finite = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        text = json.dumps(finite, ensure_ascii=False)
    return _BACKSLASH_OR_NUL.sub(
        lambda found: found[0] if found["backslash"] else REPLACEMENT, storable(text)
    )


def hash_key(*parts: str) -> UUID:
    """128 bits of SHA-256 over the parts; equal exactly when all parts are."""
    short = sum(map(len, parts)) <= MAX_CACHED_CHARACTERS  # a whole body can be a part
    return _cached_key(*parts) if short else _hash_key(*parts)


def _hash_key(*parts: str) -> UUID:
    digest = sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return UUID(bytes=digest.digest()[:16])


_cached_key = lru_cache(maxsize=1_024)(_hash_key)


def arrays(columns: Sequence[str], rows: Sequence[Sequence[Any]], prefix: str = "") -> dict[str, list[Any]]:
    """The values of each column as PostgreSQL can hold them, for a statement with `unnest`; the names of its
    parameters begin with `prefix`.
    """
    by_column = zip(*rows, strict=True) if rows else repeat(())
    return {
        f"{prefix}{name}": [
            storable(value)
            if isinstance(value, str)
            else storable_json(value)
            if isinstance(value, dict)
            else value
            for value in values
        ]
        for name, values in zip(columns, by_column, strict=bool(rows))
    }
