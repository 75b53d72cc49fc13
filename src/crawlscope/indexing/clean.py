"""Reduces a page's Markdown to its text, so that only words are chunked, embedded and compared.

Headings, lists, tables and code stay. Invisible characters, comments, embedded images, anchors beside
headings, and the targets of links and images are removed. Targets are no words of the page, yet they are more
than half of the tokens of a typical documentation page. Every pattern here takes linear time on any input:
each stops at the character that could begin its next match. A pattern runs only on text that can match it,
because most pages match few of them; those on lines begin with a line break, which is found fast. No group is
possessive, because Python 3.11.0 to 3.11.4 match such groups wrongly.
"""

import re
import unicodedata
from collections.abc import Iterator

from crawlscope.core.errors import PageError
from crawlscope.indexing.blocks import FENCES, closes, lines_with, opening_fence

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ud800-\udfff]")
_UNUSUAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u2028\u2029\u2060\ufeff\ud800-\udfff]")
"""Matches wherever one of the patterns above does."""
_PDF = re.compile(r"\s{0,100}%PDF-\d\.\d\s")

_COMPOSED_WITH_PREVIOUS = r"[\u0300-\u036f\u1161-\u11ff\u3099\u309a]"
_NON_ASCII = re.compile(rf"[\x00-\x7f]?[^\x00-\x7f]{{1,512}}{_COMPOSED_WITH_PREVIOUS}{{0,32}}")

_INLINE_CODE = r"``[^`\n]++(?:`[^`\n]++)*``|`[^`\n]++`"
_ESCAPE = r"\\[^\n]"
_LINK_TEXT = r"(?:[^\[\]\\`\n]++|\\.|`[^`\n]*+`|\n(?![ \t]*+\n))*"
_NO_SPACE = r"(?:[^\s()<>\\]++|\\[^\s])*"
# CommonMark wants at least three levels of parentheses.
_BALANCED = _NO_SPACE
for _ in range(3):
    _BALANCED = rf"{_NO_SPACE}(?:\({_BALANCED}\){_NO_SPACE})*"
_DESTINATION = rf"(?:<[^<>\n]*+>|data:[^\n()]*+(?:\([^\n()]*+\)[^\n()]*+)*|{_BALANCED})"
_TITLE = r"""(?:\s++(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))?"""
_LINK = rf"\[(?P<text>{_LINK_TEXT})\]\(\s*+(?P<target>{_DESTINATION}){_TITLE}\s*+\)"
_UNDERLINE_BELOW = r"(?P<underline>[ \t]*+\n[ \t]*+\n(?=(?:={3,}|-{3,})[ \t]*+(?:\n|\Z)))?"
_SENTENCE_BELOW = r"(?P<break>[ \t]*+\n[ \t]*+(?=[,;)?]|\.(?!\.)))?"

_IMAGES = re.compile(rf"{_INLINE_CODE}|{_ESCAPE}|!{_LINK}", re.DOTALL)
_LINKS = re.compile(rf"{_INLINE_CODE}|{_ESCAPE}|{_LINK}{_UNDERLINE_BELOW}{_SENTENCE_BELOW}", re.DOTALL)
_CODE_OR_COMMENT = re.compile(rf"{_INLINE_CODE}|{_ESCAPE}|<!--")
_DATA_URI = re.compile(
    r"(?P<head>data:[\w.+-]{1,60}/[\w.+-]{1,60}(?:;[\w=.-]{1,60}){0,3};base64,)(?P<payload>[\w+/=%-]*+)",
    re.ASCII,
)
_BREAK_TAG = re.compile(r"<br[ \t/>]", re.IGNORECASE)
_BREAK_TAGS = re.compile(
    rf"{_INLINE_CODE}|{_ESCAPE}|(?P<tags>(?<![ \t])[ \t]*+(?:<br[ \t]{{0,9}}/?>[ \t]*+)+)", re.IGNORECASE
)
_BREAK_MARK = re.compile(r"\\(?<!\\\\)(?=\n)")
_RULE_LINE = re.compile(r"\n[-=_*|:+ \t]++(?=\n)")
_RUN = re.compile(r"([-=_*])\1{3,}")
_RUNS = ("----", "====", "____", "****")
_EMPTY_ITEM = re.compile(r"\n[ \t]*[*+-][ \t]*(?=\n)")
_SKIP_LINE = re.compile(
    r"\n[ \t>*+-]*skip (?:to|past|over) (?:the )?(?:main |primary |page |site )?"
    r"(?:content|main|navigation|nav|search|footer|menu|sidebar|article)[ \t.»→]*(?=\n)",
    re.IGNORECASE,
)
_BLANK_LINES = re.compile(r"\n\n\n+")
_WORD = re.compile(r"[^\W_]")

_ANCHOR_TEXTS = frozenset({"¶", "§", "#", "🔗", "⚓", "⚓\ufe0e"})
_MIN_UNREADABLE = 8
_MAX_CONTROLS_SHARE = 0.05
_MAX_UNREADABLE_SHARE = 0.3
_MAX_CODE_PAYLOAD = 64


def clean(markdown: str) -> str:
    """Empty if no word remains. Raises `PageError` with the code `binary_content` for binary content."""
    text, unusual = markdown, _UNUSUAL.search(markdown)
    _refuse_binary(text, controls=len(_CONTROLS.findall(text)) if unusual else 0)
    if unusual:
        text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    if not text.isascii():
        text = "\n".join(line if line.isascii() else _composed(line) for line in text.split("\n"))
    parts = []
    for is_code, part in _separate_code(text):
        if is_code:
            parts.append(
                _DATA_URI.sub(
                    lambda uri: uri["head"] if len(uri["payload"]) > _MAX_CODE_PAYLOAD else uri[0], part
                )
            )
        else:
            parts.append(_clean_prose(part))
    cleaned = "".join(parts).strip()
    return cleaned if _WORD.search(cleaned) else ""


def _composed(line: str) -> str:
    """In short pieces, because sorting a long run of combining marks takes quadratic time."""
    return _NON_ASCII.sub(lambda piece: unicodedata.normalize("NFC", piece[0]), line)


def _refuse_binary(text: str, controls: int) -> None:
    unreadable = controls + text.count("\ufffd")
    if _PDF.match(text) or (
        unreadable >= _MIN_UNREADABLE
        and (controls > _MAX_CONTROLS_SHARE * len(text) or unreadable > _MAX_UNREADABLE_SHARE * len(text))
    ):
        raise PageError(
            "binary_content",
            f"The page is not text: {unreadable} of its {len(text)} characters are unreadable.",
        )


def _separate_code(text: str) -> Iterator[tuple[bool, str]]:
    """The text in order, as (is it fenced code?, part); a fence that is never closed ends with the text."""
    done, mark = 0, ""
    for start, end in lines_with(text, *FENCES):
        line = text[start:end]
        if mark and closes(line, mark):
            yield True, text[done:end]
            done, mark = end, ""
        elif not mark and (fence := opening_fence(line)):
            yield False, text[done:start]
            done, mark = start, fence["mark"]
    yield bool(mark), text[done:]


def _clean_prose(prose: str) -> str:
    if "<!--" in prose:
        prose = _drop_comments(prose)
    if "![" in prose:
        prose = _IMAGES.sub(_keep_text, prose)
    if "](" in prose:
        prose = _LINKS.sub(_keep_text, prose)
    prose = _DATA_URI.sub("", prose)
    if _BREAK_TAG.search(prose):
        prose = _BREAK_TAGS.sub(lambda match: " " if match["tags"] else match[0], prose)
    lines = f"\n{prose}\n"
    if " \n" in lines or "\t\n" in lines:
        lines = "\n".join([line.rstrip(" \t") for line in lines.split("\n")])
    lines = _BREAK_MARK.sub("", lines)
    lines = _SKIP_LINE.sub("\n", lines)
    if any(run in lines for run in _RUNS):
        lines = _RULE_LINE.sub(lambda match: _RUN.sub(r"\1\1\1", match[0]), lines)
    lines = _EMPTY_ITEM.sub("\n", lines)
    return _BLANK_LINES.sub("\n\n", lines[1:-1])


def _drop_comments(prose: str) -> str:
    """A comment that is never closed stays, and ends the search."""
    kept: list[str] = []
    position = 0
    for match in _CODE_OR_COMMENT.finditer(prose):
        if match.start() < position or not match[0].startswith("<!--"):
            continue
        end = prose.find("-->", match.end())
        if end < 0:
            break
        kept.append(prose[position : match.start()])
        position = end + len("-->")
    return "".join(kept) + prose[position:]


def _keep_text(match: re.Match[str]) -> str:
    """The visible text of a link or image; nothing for an anchor. Code and escapes are not changed.

    Also removes additions of HTML converters: the line break between a link and the comma after it, and the
    blank line between a heading with an anchor and its underline.
    """
    text = match["text"]
    if text is None:
        return match[0]
    underline = match.groupdict().get("underline") or ""
    bare = text.strip().removeprefix("\\")
    if not bare or (bare in _ANCHOR_TEXTS and "#" in match["target"]):
        return "\n" if underline else ""
    return text + underline
