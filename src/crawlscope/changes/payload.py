"""Reads a notification of changedetection.io, whatever body it was configured with: pure, without I/O.

A body of your own (`post://`) is an object with the fields below. `json://` wraps title and text in an
envelope; that text may itself be such an object.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from crawlscope.core.settings import is_web_address
from crawlscope.core.values import hash_key, storable
from crawlscope.sessions.fold import credible_moment
from crawlscope.webhooks.payload import MalformedDelivery, UnreadableDelivery

IDS = ("watch_id", "watch_uuid", "uuid")
URLS = ("watch_url", "url")
TIMES = ("detected_at", "timestamp", "change_datetime", "timestamp_to")
DIFFS = ("diff_summary", "diff", "message")
SNAPSHOTS = ("snapshot_url", "preview_url", "diff_url")
NOT_KEPT = {"version", "attachments", *IDS, *URLS, *TIMES, *DIFFS, *SNAPSHOTS}
SOURCE_PREFIX = "source:"
"""A prefix for watches of the page's HTML."""
MAX_DIFF_LENGTH = 20_000
MAX_ID_LENGTH = 255
MAX_TEXT_LENGTH = 2_048
MAX_FURTHER_FIELDS = 20
MILLISECONDS_SINCE = 1e11
"""Numbers from here on are milliseconds: as seconds they would be of the year 5138."""

_DEFAULT_TEXTS = {
    "title": re.compile(
        r"^ChangeDetection\.io Notification - (?:source:)?(https?://\S.*)$", re.MULTILINE | re.IGNORECASE
    ),
    "message": re.compile(r"^(?:source:)?(https?://[^\s<>].*?) had a change\.", re.MULTILINE | re.IGNORECASE),
}
"""The default texts of changedetection.io, in which the whole URL stands alone."""
_URL_IN_TEXT = re.compile(r"https?://[^\s<>\"`]+", re.IGNORECASE)
_ESCAPED = re.compile(r"&(?:amp|lt|gt|quot|#39|#x27|#34);")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_PUNCTUATION = ".,;:!?'’”»*。，、；：！？…"

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    watch_id: str | None
    watch_url: str
    detected_at: datetime
    dated: bool
    """Whether the notification has a time of its own."""
    diff_summary: str | None
    snapshot_url: str | None
    further: dict[str, Any]

    @property
    def identity(self) -> UUID:
        """Equal for notifications of one change; those that are not dated can also be of two."""
        watch = self.watch_id or self.watch_url
        if self.dated:
            return hash_key("at", watch, self.detected_at.isoformat())
        return hash_key("what", watch, self.snapshot_url or "", self.diff_summary or "")


def read_change(body: bytes, received_at: datetime) -> Change:
    """Raises `UnreadableDelivery` if the body is not JSON, `MalformedDelivery` if it names no page."""
    try:
        sent = json.loads(body, strict=False)  # templates put line breaks into texts
    except (ValueError, RecursionError):
        raise UnreadableDelivery(
            "the body is not JSON: use the notification body of docs/how-to.md, in the format plain text"
        ) from None
    fields = _fields(sent)
    detected_at = next(filter(None, (_moment(fields.get(name)) for name in TIMES)), None)
    snapshot_urls = (_text(fields, (name,), None) for name in SNAPSHOTS)
    return Change(
        watch_id=_text(fields, IDS, MAX_ID_LENGTH),
        watch_url=_watch_url(fields),
        detected_at=min(detected_at or received_at, received_at),
        dated=detected_at is not None,
        diff_summary=_text(fields, DIFFS, MAX_DIFF_LENGTH),
        # Without a base URL of its own, changedetection.io has a sentence about that in place of a URL.
        snapshot_url=next(
            (url for url in snapshot_urls if url and len(url) <= MAX_TEXT_LENGTH and is_web_address(url)),
            None,
        ),
        further=_further(fields, None if detected_at else _text(fields, TIMES)),
    )


def _fields(sent: Any) -> Fields:
    if not isinstance(sent, dict):
        raise MalformedDelivery("the body must be a JSON object with `watch_url`")
    message = sent.get("message")
    if isinstance(message, str) and message.lstrip().startswith("{"):
        try:
            inner = json.loads(message, strict=False)
        except (ValueError, RecursionError):
            return sent
        if isinstance(inner, dict):
            return {**{name: value for name, value in sent.items() if name != "message"}, **inner}
    return sent


def _watch_url(fields: Fields) -> str:
    """In full length: a part of the URL would be another page."""
    named = _text(fields, URLS, None)
    if named:
        return named.removeprefix(SOURCE_PREFIX)
    texts = {name: _text(fields, (name,), None) or "" for name in ("title", "message")}
    for name, default in _DEFAULT_TEXTS.items():
        if found := default.search(texts[name]):
            return _unescaped(found[1].strip())
    for text in texts.values():
        if found := _URL_IN_TEXT.search(text):
            url = _unescaped(found[0])
            # The punctuation and the brackets of the sentence around it go, its own stay.
            while url[-1] in _PUNCTUATION or url.count(url[-1]) > url.count(_BRACKETS.get(url[-1], url[-1])):
                url = url[:-1]
            return url
    raise MalformedDelivery(
        "the notification names no page: put `watch_url` into its body, as docs/how-to.md shows"
    )


def _unescaped(url: str) -> str:
    """Notification formats with HTML escape the URL."""
    return _ESCAPED.sub(lambda reference: html.unescape(reference[0]), url)


def _moment(value: Any) -> datetime | None:
    """ISO 8601, seconds or milliseconds since 1970, or changedetection.io's own `2026-01-31 12:00:00 UTC`."""
    text = _word(value)
    if re.fullmatch(r"\d{9,14}(\.\d+)?", text):
        number = float(text)
        return datetime.fromtimestamp(number / (1_000 if number >= MILLISECONDS_SINCE else 1), UTC)
    return credible_moment(text.removesuffix(" UTC").removesuffix(" GMT")) if len(text) >= 16 else None


def _text(fields: Fields, names: tuple[str, ...], max_length: int | None = MAX_TEXT_LENGTH) -> str | None:
    """The first of these fields that has a text or number, cut to `max_length`."""
    text = next(filter(None, (_word(fields.get(name)) for name in names)), None)
    return storable(text[:max_length]) if text else None


def _word(value: Any) -> str:
    """Empty if the value is neither text nor number."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _further(fields: Fields, unreadable_time: str | None) -> dict[str, Any]:
    """Other fields with a text, number or flag, not screenshots."""
    kept = {
        storable(name): value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in fields.items()
        if name not in NOT_KEPT and isinstance(value, str | int | float | bool) and value != ""
    }
    unreadable = {"unreadable_time": unreadable_time} if unreadable_time else {}
    return unreadable | dict(list(kept.items())[:MAX_FURTHER_FIELDS])
