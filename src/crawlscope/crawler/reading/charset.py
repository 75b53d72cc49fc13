"""Decodes a page's bytes, even if its server and its author declared another charset."""

import codecs
import re

import webencodings
from turbohtml.detect import detect

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_OWN_WORD = re.compile(
    rb"""<!--(?s:.*?)(?:-->|\Z)|<meta[^<>]+?charset\s*=\s*["']?\s*([^\s"'/;<>]+)"""
    rb"""|<\?xml[^<>]+?encoding\s*=\s*["']\s*([^\s"'<>]+)""",
    re.IGNORECASE,
)
_OWN_WORD_WITHIN = 4096
# Charsets that the standard does not decode. Python's registry also holds codecs that are none, such as zip,
# or that take forever, such as punycode.
_OTHER_CHARSETS = re.compile(r"cp\d+|iso2022_|hz|johab|mac_|utf-32")
_MANY_BYTES = (
    "utf-8",
    "utf-16le",
    "utf-16be",
    "gbk",
    "gb18030",
    "big5",
    "euc-jp",
    "shift_jis",
    "euc-kr",
    "iso-2022-jp",
)
_ESCAPE_OF_ISO_2022 = b"\x1b$"
_DETECTED_FROM = 1 << 18
_ASCII = bytes(range(128))
_UNREADABLE = "\ufffd"


def decode(body: bytes, declared: str | None) -> str:
    """Never raises: what cannot be read becomes U+FFFD, one for each fault, as in browsers.

    `declared` is the charset of the Content-Type header. A byte order mark counts before it, the page's own
    word after it, by the labels and tables of the WHATWG Encoding Standard. If nothing is declared, or the
    declaration cannot be right, the bytes decide.
    """
    for mark, charset in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body.decode(charset, errors="replace")
    labels = (found[1] or found[2] for found in _OWN_WORD.finditer(body, 0, _OWN_WORD_WITHIN))
    own_word = next(filter(None, labels), b"").decode("ascii", "replace")
    charset = _charset(declared) or _charset(own_word) or ""
    if charset.startswith("utf-16") and b"\0" not in body:
        charset = "utf-8"
    if body.isascii() and _ESCAPE_OF_ISO_2022 not in body and charset in ("", *_MANY_BYTES):
        return body.decode("ascii")
    utf_8 = body.decode("utf-8", errors="replace")
    # How many faults there are, and how many characters beyond ASCII are right.
    wrong = utf_8.count(_UNREADABLE) - body.count(_UNREADABLE.encode())
    right = len(utf_8) - (len(body) - len(body.translate(None, _ASCII))) - wrong
    if charset == "utf-8":
        # Browsers believe it. Five faults and hardly a character that is right are a wrong word.
        return utf_8 if wrong < 5 or wrong < 4 * right else _detected(body)
    if charset in _MANY_BYTES:
        return utf_8 if right >= 10 and not wrong else _decoded(body, charset)
    if right > 2 * wrong:
        return utf_8
    return _decoded(body, charset) if charset else _detected(body)


def _charset(label: str | None) -> str | None:
    """The standard's name of a charset, or Python's where the standard cannot read it."""
    if not label:
        return None
    found = webencodings.lookup(label.strip("\"' \t"))
    if found is not None and found.name != "replacement":
        return str(found.name)
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    return name if _OTHER_CHARSETS.match(name) else None


def _decoded(body: bytes, charset: str) -> str:
    standard = webencodings.lookup(charset) is not None
    return body.decode(f"whatwg-{charset}" if standard else charset, errors="replace")


def _detected(body: bytes) -> str:
    found = detect(body[:_DETECTED_FROM])
    return body.decode(found.codec or "whatwg-windows-1252", errors="replace")
