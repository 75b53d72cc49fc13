"""The text of a page that was delivered as HTML alone."""

from crawlscope.crawler.markdown import to_markdown
from crawlscope.database.values import storable


def read_html(html: str, url: str) -> str:
    """Its Markdown, as the built-in crawler reads pages. Blocks: call it in a thread."""
    return storable(to_markdown(html, url).markdown)
