"""The commands on crawls."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crawlscope.cli.common import CrawlId, Json, complain, show, with_service
from crawlscope.core.errors import CrawlscopeError, UsageError
from crawlscope.core.vocabulary import CrawlStatus, Engine

if TYPE_CHECKING:
    from crawlscope.api.client import CrawlReport
    from crawlscope.api.stack import Stack
    from crawlscope.changes.schemas import CrawlWatched
    from crawlscope.crawls.schemas import PagesQueued

MAX_PAGES = 1_000_000
MAX_CRAWLS = 1_000
MAX_WATCHES = 10_000


def crawl(
    urls: Annotated[list[str], typer.Argument(metavar="URL...")],
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PAGES, help="Maximum number of pages, including the start page."),
    ] = None,
    engine: Annotated[
        Literal["builtin", "firecrawl"] | None,
        typer.Option(
            help="The crawler. Default: firecrawl if CRAWLSCOPE_FIRECRAWL_URL is set, otherwise builtin."
        ),
    ] = None,
    scrape_options: Annotated[
        str | None, typer.Option(metavar="JSON", help="Firecrawl's scrape options, as a JSON object.")
    ] = None,
    as_json: Json = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return as soon as the crawl is queued.")
    ] = False,
) -> None:
    """Crawl a website and wait until every page is searchable. With several URLs, scrape only these pages."""
    from crawlscope.crawls.requests import check_target

    try:
        targets = [check_target(url) for url in urls]
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint="URL") from None
    options = _json_object(scrape_options, "--scrape-options")
    if len(targets) > 1 and (limit is not None or engine == "builtin"):
        raise typer.BadParameter(
            "several URLs are scraped by Firecrawl, without --limit and without --engine builtin",
            param_hint="URL",
        )

    async def start(stack: "Stack") -> str:
        if len(targets) == 1:
            return await stack.client.start_crawl(targets[0], limit, engine, options)
        started = await stack.client.start_batch(targets, options)
        if started.invalid_urls:
            complain(f"left out, because Firecrawl cannot scrape it: {', '.join(started.invalid_urls)}")
        return started.crawl_id

    async def start_and_follow(stack: "Stack") -> "CrawlReport":
        return await _follow_to_end(stack, await start(stack), as_json)

    async def start_only(stack: "Stack") -> None:
        started = await stack.client.crawl(await start(stack))
        show(started, as_json, lambda: started.crawl_id)
        if stack.is_own:
            at_firecrawl = started.engine == Engine.FIRECRAWL
            goes_on = "Firecrawl crawls, and its pages are fetched" if at_firecrawl else "the crawl goes on"
            complain(f"no service keeps running: {goes_on} when one does, see `crawlscope up`")

    if no_wait:
        with_service(start_only)
    else:
        _require_success(with_service(start_and_follow))


def cancel(crawl_id: CrawlId, as_json: Json = False) -> None:
    """Cancel a crawl. Pages that were already received are still indexed."""
    answer = with_service(lambda stack: stack.client.cancel(crawl_id))
    message = "Cancelled. What was received is indexed." if answer.cancelled else "It had ended already."
    show(answer, as_json, lambda: message)


def crawls(
    limit: Annotated[int, typer.Option(min=1, max=MAX_CRAWLS, help="Maximum number of crawls.")] = 50,
    as_json: Json = False,
) -> None:
    """List crawls, newest first."""
    from crawlscope.cli.output.crawls import render_crawls

    listed = with_service(lambda stack: stack.client.crawls(limit))
    show(listed, as_json, lambda: render_crawls(listed, datetime.now(UTC)))


def top(as_json: Json = False) -> None:
    """Show all running crawls, live. Ctrl-C ends it."""
    from crawlscope.cli.common import terminal
    from crawlscope.cli.output.top import running_crawls, watch_crawls

    if as_json:
        found = with_service(lambda stack: running_crawls(stack.client))
        show(found, as_json, lambda: "")
        return
    with_service(lambda stack: watch_crawls(stack.client, terminal(), stack.recover))


def profile(
    crawl_id: CrawlId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow a running crawl until every page is searchable.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the results and the timing of a crawl."""
    if follow:
        _require_success(with_service(lambda stack: _follow_to_end(stack, crawl_id, as_json)))
    else:
        with_service(lambda stack: _show_profile(stack, crawl_id, as_json))


def compare(
    crawl_id: Annotated[str, typer.Argument(metavar="A")],
    against: Annotated[str, typer.Argument(metavar="B")],
    url: Annotated[
        str | None, typer.Option(help="Show what differs in the page with this source URL.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two crawls: numbers, stages, and the pages that differ. B is usually the earlier one."""
    from crawlscope.api.rendering.changes import EXAMPLES, render_page_changes
    from crawlscope.api.rendering.comparison import render_report

    if url is not None:
        changes = with_service(lambda stack: stack.client.page_changes(crawl_id, against, url=url))
        show(changes, as_json, lambda: render_page_changes(changes, url))
        return
    report = with_service(lambda stack: stack.client.comparison(crawl_id, against, EXAMPLES))
    show(report, as_json, lambda: render_report(report))


def retry(
    crawl_id: CrawlId,
    url: Annotated[
        list[str] | None, typer.Option(help="Retry only the page with this source URL. Can be repeated.")
    ] = None,
    rescrape: Annotated[
        bool,
        typer.Option("--rescrape", help="Scrape failed pages again if their content was never received."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Retry the failed pages of a crawl, and list the pages that cannot be retried."""
    from crawlscope.api.rendering.retried import complaint, retried_lines

    async def work(stack: "Stack") -> "PagesQueued":
        retried = await stack.client.retry(crawl_id, url, rescrape=rescrape)
        show(retried, as_json, lambda: "\n".join(retried_lines(retried)))
        if stack.is_own:  # the pages need the service, which stops with this command
            for started in [crawl_id] * bool(retried.queued) + [retried.rescrape_crawl_id or ""]:
                if started:
                    await _follow(stack, started, as_json)
                    if not as_json:
                        await _show_profile(stack, started, as_json)
        return retried

    if problem := complaint(with_service(work)):
        raise CrawlscopeError(problem)


def delete(
    crawl_id: CrawlId,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a crawl and its pages. A running crawl is cancelled first."""
    from crawlscope.api.rendering.words import count, plain

    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(
            "stdin is not a terminal, so the command cannot ask: confirm with --yes", param_hint="--yes"
        )
    if not yes:
        found = with_service(lambda stack: stack.client.crawl(crawl_id))
        running = ", which still runs" if found.status is CrawlStatus.IN_PROGRESS else ""
        pages = count(found.total_pages + found.pages_pending, "page")
        # Asked outside of the event loop, in which Ctrl-C would not end the question.
        question = f"Delete the crawl of {plain(found.crawl_url)}{running}, and its {pages}?"
        if not typer.confirm(question, err=True):
            raise CrawlscopeError("nothing was deleted")
    deleted = with_service(lambda stack: stack.patiently(lambda: stack.client.delete(crawl_id)))
    if deleted.goes_on:
        complain(f"the crawl may continue at Firecrawl, which could not cancel it: {deleted.goes_on}")
    show(deleted, as_json, lambda: f"Crawl {plain(crawl_id)} is deleted.")


def reconcile(crawl_id: CrawlId, as_json: Json = False) -> None:
    """Compare a crawl with Firecrawl's records, and fetch missing pages."""
    from crawlscope.cli.output.changed import reconciled_text

    async def work(stack: "Stack") -> None:
        found = await stack.client.reconcile(crawl_id)
        show(found, as_json, lambda: reconciled_text(found))
        if found.added and stack.is_own:  # the pages need the service, which stops with this command
            await _follow(stack, crawl_id, as_json)

    with_service(work)


def watch(
    crawl_id: CrawlId,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MAX_WATCHES, help="Maximum number of new watches.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make changedetection.io watch the pages of a crawl and report changes to Crawlscope."""
    from crawlscope.api.rendering.words import count, plain
    from crawlscope.cli.output.changed import watched_text
    from crawlscope.core.service_file import public_address

    async def work(stack: "Stack") -> "CrawlWatched":
        watched = await stack.client.watch(crawl_id, limit)
        if stack.is_own:
            complain(
                "no service keeps running: changedetection.io reports changes to "
                f"{public_address(stack.settings)}, where a service must run, see `crawlscope up`"
            )
        return watched

    watched = with_service(work)
    show(watched, as_json, lambda: watched_text(watched))
    if watched.refused:
        first = watched.refused[0]
        pages = count(len(watched.refused), "page is", "pages are")
        raise CrawlscopeError(f"{pages} not watched, the first: {plain(first.url)}: {plain(first.reason)}")


def recount(crawl_id: CrawlId, as_json: Json = False) -> None:
    """Recompute the counts and totals of a crawl from its records."""
    from crawlscope.cli.output.changed import recounted_text

    counted = with_service(lambda stack: stack.client.recount(crawl_id))
    show(counted, as_json, lambda: recounted_text(counted))


def replay(
    crawl_id: Annotated[str | None, typer.Option(help="Reprocess only deliveries of this crawl.")] = None,
    event_type: Annotated[
        str | None, typer.Option(help="Reprocess only events of this type, for example crawl.page.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Reprocess only deliveries received at this time or later. Default time zone: UTC."
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(help="Reprocess only deliveries received before this time. Default time zone: UTC."),
    ] = None,
    noted: Annotated[
        bool, typer.Option("--noted", help="Reprocess only deliveries with recorded irregularities.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Reprocess stored deliveries with the rules of this version."""
    from crawlscope.cli.output.changed import replayed_text

    given: dict[str, Any] = {
        "crawl_id": crawl_id,
        "event_type": event_type,
        "noted": noted,
        "since": since and _in_utc(since),
        "until": until and _in_utc(until),
    }
    which = {name: value for name, value in given.items() if value is not None}
    replayed = with_service(lambda stack: stack.client.replay(**which))
    show(replayed, as_json, lambda: replayed_text(replayed))


def _in_utc(time: datetime) -> str:
    """In ISO 8601. The default time zone is UTC."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _json_object(text: str | None, option: str) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object such as '{\"waitFor\": 500}'", param_hint=option)
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise typer.BadParameter(
            "must not contain NaN, infinity or lone surrogates, and must not be nested too deeply",
            param_hint=option,
        ) from None
    return value


async def _follow_to_end(stack: "Stack", crawl_id: str, as_json: bool) -> "CrawlReport":
    """Prints the crawl's id first, because every other command asks for it."""
    from crawlscope.api.rendering.outcome import shortfall
    from crawlscope.api.rendering.words import plain

    if not as_json:
        typer.echo(f"Crawl {plain(crawl_id)}")
    await _follow(stack, crawl_id, as_json)
    report = await _show_profile(stack, crawl_id, as_json)
    if not as_json and (message := shortfall(report)):
        typer.echo(message)
    return report


async def _follow(stack: "Stack", crawl_id: str, as_json: bool) -> None:
    """With JSON the progress bar goes to stderr, if that is a terminal."""
    from rich.console import Console

    from crawlscope.api.rendering.words import plain
    from crawlscope.cli.output.follow import follow, ignore, shown_on

    console = Console(stderr=as_json, highlight=False)
    try:
        if as_json and not console.is_terminal:
            await follow(stack.client, crawl_id, ignore, stack.recover, complain)
            return
        with shown_on(console) as show_progress:
            await follow(stack.client, crawl_id, show_progress, stack.recover, complain)
    except asyncio.CancelledError:
        goes_on = "goes on once a service runs" if stack.is_own else "goes on"
        shown_id = plain(crawl_id)
        complain(
            f"crawl {shown_id} {goes_on}. Follow it again: crawlscope profile {shown_id} --follow. "
            f"Cancel it: crawlscope cancel {shown_id}"
        )
        raise


async def _show_profile(stack: "Stack", crawl_id: str, as_json: bool) -> "CrawlReport":
    from crawlscope.api.rendering.profile import render_profile

    report = await stack.client.report(crawl_id)
    show(report.crawl, as_json, lambda: render_profile(report))
    return report


def _require_success(report: "CrawlReport") -> None:
    """Raises `CrawlscopeError` with the reason if the crawl did not succeed."""
    from crawlscope.api.rendering.outcome import failure

    if reason := failure(report):
        raise CrawlscopeError(reason)
