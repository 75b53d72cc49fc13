"""Search results on a terminal: title, URL, score and the passage that answers the query."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.words import count, duration, plain, shorten_middle
from crawlscope.search.schemas import Highlight, SearchResponse

INDENT = 4
MARK = "bold yellow"


def render_results(response: SearchResponse, width: int) -> RenderableType:
    """`total` is a lower bound of the number of matching pages, so the summary does not call it "found"."""
    took = f"{response.mode} search, {duration(response.took_ms)}"
    if not response.results:
        return Text(f"Nothing found ({took})", style="dim")
    lines: list[RenderableType] = []
    if response.corrected_query:
        lines += [Text(f"Showing results for “{plain(response.corrected_query)}”", style="bold"), Text()]
    for number, result in enumerate(response.results, start=1):
        heading = Table.grid(padding=(0, 1), expand=True)
        heading.add_column(width=INDENT - 1, justify="right", style="dim", no_wrap=True)
        heading.add_column(ratio=1)
        heading.add_column(justify="right", no_wrap=True)
        title = Text(plain(result.title) or plain(result.url), style="bold")
        heading.add_row(f"{number}.", title, Text(f"{result.score:.2f}", style="dim"))
        url = Text(shorten_middle(plain(result.url), max(20, width - INDENT)), style="cyan")
        heading.add_row("", url, "")
        if result.highlights:
            heading.add_row("", marked(result.highlights[0]), "")
        lines += [heading, Text()]
    shown = count(len(response.results), "page")
    return Group(*lines, Text(f"{shown} of {response.total:,} ({took})", style="dim"))


def marked(highlight: Highlight) -> Text:
    """With the words of the query in colour, unless the text could control the terminal."""
    text = Text(plain(highlight.text))
    if text.plain == highlight.text:
        for word in highlight.matches:
            text.stylize(MARK, word.start, word.end)
    return text
