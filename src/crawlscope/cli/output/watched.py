"""What having a crawl's pages watched has come to, in words."""

from rich.text import Text

from crawlscope.api.rendering.words import count, plain
from crawlscope.changes.schemas import CrawlWatched

MOST_SHOWN = 20


def render_watched(watched: CrawlWatched) -> Text:
    """The numbers in one line, then the pages that are not watched, each with its reason."""
    lines = [f"{count(watched.created, 'watch', 'watches')} created, {watched.known:,} known before."]
    if watched.left:
        lines[0] += f" {count(watched.left, 'page')} left: call it again."
    lines += [f"{plain(page.url)}: {plain(page.reason)}" for page in watched.refused[:MOST_SHOWN]]
    if len(watched.refused) > MOST_SHOWN:
        lines.append(f"and {len(watched.refused) - MOST_SHOWN:,} more that are not watched; --json shows all")
    return Text("\n".join(lines))
