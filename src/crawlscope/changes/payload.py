"""What a notification of changedetection.io says, whatever body it was given: pure reading.

A body of one's own (`post://`) is an object with the fields below. `json://` wraps title and text in an
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
"""With it a watch looks at the page's HTML."""
LONGEST_DIFF = 20_000
LONGEST_ID = 255
LONGEST_TEXT = 2_048
MOST_FURTHER = 20
MILLISECONDS_SINCE = 1e11
"""Numbers from here on are no seconds: those would be of the year 5138."""

_DEFAULT_TEXTS = {
    "title": re.compile(
        r"^ChangeDetection\.io Notification - (?:source:)?(https?://\S.*)$", re.MULTILINE | re.IGNORECASE
    ),
    "message": re.compile(r"^(?:source:)?(https?://[^\s<>].*?) had a change\.", re.MULTILINE | re.IGNORECASE),
}
"""What changedetection.io says unless it is told to say something else: there the whole URL stands alone."""
_URL_IN_TEXT = re.compile(r"https?://[^\s<>\"`]+", re.IGNORECASE)
_ESCAPED = re.compile(r"&(?:amp|lt|gt|quot|#39|#x27|#34);")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_OF_THE_SENTENCE = ".,;:!?'’”»*。，、；：！？…"

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    watch_id: str | None
    watch_url: str
    detected_at: datetime
    dated: bool
    """Whether the watcher said when."""
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
    """Raises `UnreadableDelivery` for what is no JSON, `MalformedDelivery` for what names no page."""
    fields = _fields(_json(body))
    detected_at = _moment(fields)
    return Change(
        watch_id=_text(fields, IDS, LONGEST_ID),
        watch_url=_watch_url(fields),
        detected_at=min(detected_at or received_at, received_at),
        dated=detected_at is not None,
        diff_summary=_text(fields, DIFFS, LONGEST_DIFF),
        snapshot_url=_snapshot_url(fields),
        further=_further(fields, None if detected_at else _text(fields, TIMES)),
    )


def _json(body: bytes) -> Any:
    """Line breaks within texts are let pass: templates put them there."""
    try:
        return json.loads(body, strict=False)
    except (ValueError, RecursionError):
        raise UnreadableDelivery(
            "the body is not JSON: use the notification body of docs/how-to.md, in the format plain text"
        ) from None


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
    """As long as it is: a part of it would be another page."""
    named = _text(fields, URLS, None)
    if named:
        return named.removeprefix(SOURCE_PREFIX)
    texts = {name: _text(fields, (name,), None) or "" for name in ("title", "message")}
    for name, default in _DEFAULT_TEXTS.items():
        if found := default.search(texts[name]):
            return _unescaped(found[1].strip())
    for text in texts.values():
        if found := _URL_IN_TEXT.search(text):
            return _without_sentence(_unescaped(found[0]))
    raise MalformedDelivery(
        "the notification names no page: put `watch_url` into its body, as docs/how-to.md shows"
    )


def _unescaped(url: str) -> str:
    """The formats with HTML in them escape it."""
    return _ESCAPED.sub(lambda reference: html.unescape(reference[0]), url)


def _without_sentence(url: str) -> str:
    """Without the punctuation and the brackets of the sentence that it stands in; its own are kept."""
    while url[-1] in _OF_THE_SENTENCE or url.count(url[-1]) > url.count(_BRACKETS.get(url[-1], url[-1])):
        url = url[:-1]
    return url


def _moment(fields: Fields) -> datetime | None:
    """The first that can be read."""
    return next(filter(None, (_read_moment(fields.get(name)) for name in TIMES)), None)


def _read_moment(value: Any) -> datetime | None:
    """ISO 8601, seconds or milliseconds since 1970, or changedetection.io's own `2026-01-31 12:00:00 UTC`."""
    text = _word(value)
    if re.fullmatch(r"\d{9,14}(\.\d+)?", text):
        number = float(text)
        return datetime.fromtimestamp(number / (1_000 if number >= MILLISECONDS_SINCE else 1), UTC)
    return credible_moment(text.removesuffix(" UTC").removesuffix(" GMT")) if len(text) >= 16 else None


def _text(fields: Fields, names: tuple[str, ...], longest: int | None = LONGEST_TEXT) -> str | None:
    """Of the first of these fields that says something; cut to `longest`, unless that is None."""
    text = next(filter(None, (_word(fields.get(name)) for name in names)), None)
    return storable(text[:longest]) if text else None


def _word(value: Any) -> str:
    """Empty for what is neither text nor number."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _snapshot_url(fields: Fields) -> str | None:
    """Without a base URL of its own, changedetection.io says so in place of one."""
    named = (_text(fields, (name,), None) for name in SNAPSHOTS)
    return next((url for url in named if url and len(url) <= LONGEST_TEXT and is_web_address(url)), None)


def _further(fields: Fields, unreadable_time: str | None) -> dict[str, Any]:
    """Short texts, numbers and flags; screenshots are none."""
    kept = {
        storable(name): value[:LONGEST_TEXT] if isinstance(value, str) else value
        for name, value in fields.items()
        if name not in NOT_KEPT and isinstance(value, str | int | float | bool) and value != ""
    }
    told = {"unreadable_time": unreadable_time} if unreadable_time else {}
    return told | dict(list(kept.items())[:MOST_FURTHER])
