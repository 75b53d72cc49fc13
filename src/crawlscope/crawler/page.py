"""What a fetched page says, by its content type."""

from crawlscope.crawler.charset import decode
from crawlscope.crawler.fetch import FetchedPage, may_hold_text
from crawlscope.crawler.markdown import PageText, to_markdown

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_LOOKED_AT_BYTES = 1024


def read_page(page: FetchedPage) -> PageText:
    """HTML becomes Markdown, other text stays as it is, all else has no text. Blocks: call it in a thread."""
    if page.media_type in _HTML_TYPES or (not page.media_type and _looks_like_html(page.body)):
        return to_markdown(page.body, page.url, page.charset)
    if not may_hold_text(page.media_type) or (
        not page.media_type and b"\x00" in page.body[:_LOOKED_AT_BYTES]
    ):
        return PageText(markdown="")
    return PageText(markdown=decode(page.body, page.charset))


def _looks_like_html(body: bytes) -> bool:
    return body[:_LOOKED_AT_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
