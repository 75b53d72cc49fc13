"""The tools' answers as text, for the model and its user."""

import io

from rich.console import Console, RenderableType

from crawlscope.api.client import CrawlReport
from crawlscope.api.mcp.schemas import (
    CancelledCrawl,
    CrawlState,
    CrawlStates,
    FoundPages,
    Profile,
    ScrapedBatch,
)
from crawlscope.api.rendering.comparison import render_comparison
from crawlscope.api.rendering.profile import render_profile
from crawlscope.api.rendering.retried import retried_lines
from crawlscope.api.rendering.words import NONE, count, duration, plain
from crawlscope.core.vocabulary import NotRetried
from crawlscope.crawls.schemas import PagesQueued
from crawlscope.insights.schemas import CrawlComparison

WIDTH = 100


def state_text(state: CrawlState) -> str:
    lines = [_headline(state), _pages(state), state.searchability]
    if state.awaits is not None:
        lines.append("Call crawl_status again later, or with wait=true.")
    return "\n".join(lines)


def states_text(states: CrawlStates) -> str:
    if not states.crawls:
        return "No crawls yet. The crawl tool starts one."
    crawls = [f"{_headline(each)}\n  {_pages(each)} {each.searchability}" for each in states.crawls]
    return "\n".join([f"{len(crawls):,} of {count(states.total, 'crawl')}, newest first:", *crawls])


def profile_text(profile: Profile, report: CrawlReport) -> str:
    parts = [_rendered(render_profile(report)), profile.searchability]
    if profile.total_errors:
        shown, offset = len(profile.errors), profile.next_error_offset
        rest = f" Further ones with error_offset={offset}." if offset else ""
        lines = [f"Failed pages one by one, {shown:,} of {profile.total_errors:,}.{rest}"]
        for error in profile.errors:
            reason = plain(error.error or "no reason was given")
            lines.append(f"- {plain(error.url)}\n  {error.code or 'unknown'}: {reason}")
        parts.append("\n".join(lines))
    if profile.slowest_pages is not None:
        lines = ["Slowest pages, stage by stage:"]
        for page in profile.slowest_pages:
            stages = [f"{name} {duration(spent)}" for name, spent in page.stages.items()]
            stages.append(f"unaccounted {duration(page.unaccounted_ms)}")
            taken = f"{duration(page.total_ms)} after {duration(page.queue_wait_ms)} in the queue"
            lines.append(f"- {plain(page.url)}\n  {taken}: {', '.join(stages)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def comparison_text(comparison: CrawlComparison) -> str:
    return _rendered(render_comparison(comparison))


def requeued_text(retried: PagesQueued) -> str:
    lines = [*retried_lines(retried)]
    if retried.rescrape_crawl_id:
        lines.append(f"Or with crawl_status and crawl_id={plain(retried.rescrape_crawl_id)}.")
    if any(NotRetried(reason).can_be_scraped for reason in retried.left):
        lines.append("With rescrape=true the crawler fetches pages again that were never received.")
    return "\n".join(lines)


def cancelled_text(cancelled: CancelledCrawl) -> str:
    done = "Cancelled; what was received is indexed." if cancelled.cancelled else "It had ended already."
    return f"{done}\n{state_text(cancelled.crawl)}"


def scraped_text(scraped: ScrapedBatch) -> str:
    if not scraped.invalid_urls:
        return state_text(scraped.crawl)
    left_out = ", ".join(map(plain, scraped.invalid_urls))
    return f"Left out, because it cannot be scraped: {left_out}\n{state_text(scraped.crawl)}"


def found_text(query: str, found: FoundPages) -> str:
    query = found.corrected_query or query
    if not found.results:
        return f"Nothing found for {plain(query)!r} ({found.mode} search)."
    shown = f"{count(len(found.results), 'page')} of {found.total:,}"
    parts = [f"{shown} for {plain(query)!r} ({found.mode} search), best first:"]
    for number, page in enumerate(found.results, start=1):
        title = plain(page.title) or NONE
        parts.append(f"{number}. {title} (score {page.score:.2f})\n{plain(page.url)}\n{page.text}")
    return "\n\n".join(parts)


def _headline(state: CrawlState) -> str:
    status = state.status.replace("_", " ")
    started = f"started {state.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"Crawl {plain(state.crawl_id)} of {plain(state.crawl_url)}: {status}, {started}."


def _pages(state: CrawlState) -> str:
    known = [
        f"{state.pages_indexed:,} indexed",
        f"{state.pages_failed:,} failed",
        f"{state.pages_pending:,} pending",
    ]
    if state.pages_found is not None:
        known.append(f"{state.pages_found:,} found")
    expected = ""
    if eta := state.eta:
        times = [f"{each:%H:%M:%S}" for each in (eta.at, eta.earliest, eta.latest)]
        expected = " Searchable at about {} UTC, between {} and {}.".format(*times)
    return f"Pages: {', '.join(known)}.{expected}"


def _rendered(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip()
