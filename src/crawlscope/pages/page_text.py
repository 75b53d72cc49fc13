"""The text of a page that was delivered as HTML alone."""

from crawlscope.core.values import storable
from crawlscope.crawler.markdown import to_markdown


def read_html(html: str, url: str) -> str:
    """Its Markdown, as the built-in crawler reads pages. Blocks: call it in a thread."""
    return storable(to_markdown(html, url).markdown)
