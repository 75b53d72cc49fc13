"""Results of commands that change a crawl, in words."""

from crawlscope.api.rendering.words import count, plain
from crawlscope.changes.schemas import CrawlWatched
from crawlscope.crawls.schemas import CrawlReconciled, CrawlRecounted
from crawlscope.webhooks.schemas import DeliveriesReplayed

MAX_SHOWN = 20


def reconciled_text(found: CrawlReconciled) -> str:
    changes = [
        words
        for number, words in (
            (found.added, f"{count(found.added, 'page')} fetched"),
            (found.failed, f"{found.failed} failed at Firecrawl"),
            (found.cancelled, f"{found.cancelled} dropped by the cancellation"),
        )
        if number
    ]
    adopted = "The crawl was not known here and is recorded now. " if found.adopted else ""
    nothing = "nothing new" if found.note else "nothing was missing"
    text = f"{adopted}{found.status}: {', '.join(changes) or nothing}."
    if found.note:
        return f"{text} {found.note}."
    return text if found.state.final else f"{text} The crawl still runs."


def watched_text(watched: CrawlWatched) -> str:
    """The numbers in one line, then the pages that are not watched, each with its reason."""
    lines = [f"{count(watched.created, 'watch', 'watches')} created, {watched.known:,} known before."]
    if watched.left:
        lines[0] += f" {count(watched.left, 'page')} left: run the command again."
    lines += [f"{plain(page.url)}: {plain(page.reason)}" for page in watched.refused[:MAX_SHOWN]]
    if len(watched.refused) > MAX_SHOWN:
        lines.append(f"and {len(watched.refused) - MAX_SHOWN:,} more that are not watched; --json shows all")
    return "\n".join(lines)


def recounted_text(counted: CrawlRecounted) -> str:
    changes = [f"{name}: was {each.was}, is {each.counted}" for name, each in counted.changed.items()]
    return "\n".join(changes) or "All counters are consistent."


def replayed_text(replayed: DeliveriesReplayed) -> str:
    text = f"{count(replayed.deliveries, 'delivery', 'deliveries')} reprocessed, {replayed.changed} changed"
    if replayed.crawls:
        text += f" in {count(len(replayed.crawls), 'crawl')}: {count(replayed.pages_queued, 'page')} queued"
    if replayed.newly_known:
        text += f"; {count(replayed.newly_known, 'event')} of a type that was not known before"
    if replayed.unreadable:
        text += f"; {replayed.unreadable} could not be read"
    return f"{text}."
