"""What a page's bytes mean as text, whatever its server and its author declared."""

import codecs
import re
from collections.abc import Iterator

_DECLARED = re.compile(
    rb"""<meta[^<>]+charset\s*=\s*["']?\s*([\w:.-]+)|<\?xml[^<>]+encoding=["']([\w:.-]+)""", re.IGNORECASE
)
_DECLARED_WITHIN = 4096
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LATIN = "cp1252"
# The registry also holds codecs that are no charsets, such as zip, or that take forever, such as punycode.
_CHARSETS = re.compile(r"utf-(?:8|16|32)|cp\d|iso|koi8|mac|gb|big5|euc|shift|johab|hz|tis|ascii")
# What pages mean when they say so: browsers read these labels as the larger character set.
_MEANT = {
    "ascii": _LATIN,
    "iso8859-1": _LATIN,
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}


def decode(body: bytes, declared: str | None) -> str:
    """Never raises. `declared` is the charset of the Content-Type header; next counts the page's own word.

    A single-byte charset fits any bytes: valid UTF-8 is taken for UTF-8 before one is believed.
    """
    for mark, charset in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body.decode(charset, errors="replace")
    for charset in _candidates(body, declared):
        try:
            return body.decode(charset)
        except UnicodeError:
            continue
    return body.decode(_LATIN, errors="replace")


def _candidates(body: bytes, declared: str | None) -> Iterator[str]:
    own = _DECLARED.search(body, 0, _DECLARED_WITHIN)
    own_name = next((name.decode("ascii") for name in own.groups() if name), None) if own else None
    for name in (declared, own_name):
        charset = _codec(name)
        if charset is None:
            continue
        if charset.startswith(("cp125", "iso8859")):
            yield "utf-8"
        yield charset
    yield "utf-8"


def _codec(name: str | None) -> str | None:
    if not name:
        return None
    try:
        found = codecs.lookup(name.strip("\"' ")).name
    except (LookupError, ValueError):
        return None
    return _MEANT.get(found, found) if _CHARSETS.match(found) else None
