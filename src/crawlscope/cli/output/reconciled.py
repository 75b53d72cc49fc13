"""What reconciling a crawl has found, in words."""

from rich.text import Text

from crawlscope.api.rendering.words import count
from crawlscope.crawls.schemas import CrawlReconciled


def render_reconciled(found: CrawlReconciled) -> Text:
    changes = [
        words
        for number, words in (
            (found.added, f"{count(found.added, 'page')} fetched"),
            (found.failed, f"{found.failed} failed at Firecrawl"),
            (found.cancelled, f"{found.cancelled} dropped by the cancel"),
        )
        if number
    ]
    nothing = "nothing new" if found.note else "nothing was missing"
    text = Text("It was not known here, and is on record now. " if found.adopted else "")
    text.append(f"{found.status}: " + (", ".join(changes) or nothing) + ".")
    if found.note:
        text.append(f" {found.note}.")
    elif not found.state.final:
        text.append(" The crawl goes on.")
    return text
