"""The list of crawls on a terminal, newest first."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.outcome import doubt, shown_status
from crawlscope.api.rendering.profile import STATUS_STYLES
from crawlscope.api.rendering.words import ago, duration, plain, shorten_middle
from crawlscope.insights.schemas import CrawlListResponse

URL_WIDTH = 36


def render_crawls(listed: CrawlListResponse, now: datetime) -> RenderableType:
    if not listed.crawls:
        return Text("No crawls yet. Start one: crawlscope crawl https://example.com", style="dim")
    table = Table(box=None, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("crawl", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name in ("indexed", "failed", "took", "started"):
        table.add_column(name, justify="right", no_wrap=True)
    for crawl in listed.crawls:
        url, status = shorten_middle(plain(crawl.crawl_url), URL_WIDTH), shown_status(crawl)
        doubted = (doubt(crawl) or "").partition(" ")[0]
        table.add_row(
            Text.assemble((plain(crawl.crawl_id), "bold"), "\n", (url, "dim")),
            Text.assemble((status.replace("_", " "), STATUS_STYLES[status]), "\n", (doubted, "yellow")),
            Text(f"{crawl.pages_indexed:,}"),
            Text(f"{crawl.pages_failed:,}", style="red" if crawl.pages_failed else ""),
            Text(duration(crawl.time_to_searchable_ms)),
            Text(ago(crawl.started_at, now)),
        )
    hidden = listed.total - len(listed.crawls)
    return Group(table, Text(f"{hidden:,} older ones are not shown", style="dim")) if hidden > 0 else table
