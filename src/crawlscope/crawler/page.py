"""What a fetched page says, by its content type."""

from crawlscope.crawler.charset import decode
from crawlscope.crawler.fetch import FetchedPage, may_hold_text
from crawlscope.crawler.markdown import PageText, to_markdown

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_LOOKED_AT = 1024


def read_page(page: FetchedPage) -> PageText:
    """HTML becomes Markdown, other text stays as it is, all else has no text. Blocks: call it in a thread."""
    if page.media_type in _HTML_TYPES or (not page.media_type and _looks_like_html(page.body)):
        return to_markdown(page.body, page.url, page.charset)
    text = decode(page.body, page.charset) if may_hold_text(page.media_type) else ""
    return PageText(markdown="" if "\0" in text[:_LOOKED_AT] else text)


def _looks_like_html(body: bytes) -> bool:
    return body[:_LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
