"""Numbers, times and text of websites, written for a terminal."""

import re
import unicodedata
from datetime import datetime

NONE = "–"
"""For an unknown value."""
_LABELS = {"worker": "worker time", "bm25": "BM25", "qdrant": "index write"}
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def label(name: str) -> str:
    """The name that people read for a stage, a state or another stored word."""
    return _LABELS.get(name, name.replace("_", " "))


def duration(milliseconds: float | None) -> str:
    """Short enough for a column: `0.4 ms`, `345 ms`, `12.3 s`, `2m 05s`, `3h 10m`."""
    if milliseconds is None:
        return NONE
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    if seconds < 3_600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    return f"{seconds // 3_600:,}h {seconds % 3_600 // 60:02d}m"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 page`, `2 pages`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole > 0 else NONE


def ratio(value: float) -> str:
    """Three digits; a small one does not look like nothing."""
    if 0 < value < 0.0995:
        return f"{value:.3f}" if value >= 0.0005 else "<0.001"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:,.1f}" if value >= 9.95 else f"{value:.2f}"


def ago(moment: datetime, now: datetime) -> str:
    """The time since then in the largest unit that fits: `5m ago`."""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:,}{unit} ago"
    return f"{seconds}s ago"


def plain(text: str) -> str:
    """One line without control characters, so that text of a website cannot control the terminal."""
    spaced = re.sub(r"\s+", " ", text)
    return "".join(
        character for character in spaced if unicodedata.category(character) not in _UNPRINTABLE
    ).strip()


def shorten_middle(text: str, width: int) -> str:
    """Keeps the beginning and the end, in which URLs differ."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
