"""Search results on a terminal: title, address, score and the passage that answers."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.words import count, duration, plain, shorten_middle
from crawlscope.cli.output.passages import excerpt
from crawlscope.search.schemas import SearchResponse, SearchResult

PASSAGE_CHARACTERS = 300
INDENT = 4


def render_results(query: str, response: SearchResponse, width: int) -> RenderableType:
    """`total` is a lower bound of the pages that match, which is why it is not called the number found."""
    shown = [_result(number, query, result, width) for number, result in enumerate(response.results, start=1)]
    return Group(*[line for each in shown for line in (each, Text())], _summary(response))


def _result(number: int, query: str, result: SearchResult, width: int) -> RenderableType:
    heading = Table.grid(padding=(0, 1), expand=True)
    heading.add_column(width=INDENT - 1, justify="right", style="dim", no_wrap=True)
    heading.add_column(ratio=1)
    heading.add_column(justify="right", no_wrap=True)
    title = Text(plain(result.title) or plain(result.url), style="bold")
    heading.add_row(f"{number}.", title, Text(f"{result.score:.2f}", style="dim"))
    url = Text(shorten_middle(plain(result.url), max(20, width - INDENT)), style="cyan")
    heading.add_row("", url, "")
    heading.add_row("", excerpt(result.text, query, PASSAGE_CHARACTERS), "")
    return heading


def _summary(response: SearchResponse) -> Text:
    took = f"{response.mode} search, {duration(response.took_ms)}"
    if not response.results:
        return Text(f"Nothing found ({took})", style="dim")
    return Text(f"{count(len(response.results), 'page')} of {response.total:,} ({took})", style="dim")
