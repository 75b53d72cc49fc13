"""The commands that talk to the running service, or to one that lives as long as the command."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console

from crawlscope.api.rendering.comparison import render_comparison
from crawlscope.api.rendering.outcome import failure, shortfall
from crawlscope.api.rendering.profile import render_profile
from crawlscope.api.rendering.retried import complaint, render_retried
from crawlscope.api.rendering.words import count, plain
from crawlscope.api.report import CrawlReport, gather_report
from crawlscope.changes.schemas import CrawlWatched
from crawlscope.cli.output.crawls import render_crawls
from crawlscope.cli.output.follow import follow, ignore, shown_on
from crawlscope.cli.output.reconciled import render_reconciled
from crawlscope.cli.output.reindex import follow_reindex, reindexed_words
from crawlscope.cli.output.results import render_results
from crawlscope.cli.output.watched import render_watched
from crawlscope.cli.stack import Stack
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.public_address import public_address
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import CrawlStatus, Engine
from crawlscope.crawls.schemas import PagesQueued
from crawlscope.insights.responses import CrawlMetricsResponse, IndexReport
from crawlscope.search.schemas import SearchRequest

T = TypeVar("T")


Start = Callable[[Stack], Awaitable[str]]
"""Returns the crawl's id."""


def crawl(
    settings: Settings,
    url: str,
    limit: int | None,
    engine: str | None,
    scrape_options: dict[str, Any] | None = None,
    *,
    as_json: bool,
    wait: bool,
) -> None:
    """Raises `CrawlscopeError` when the crawl does not succeed."""
    _crawl(
        settings,
        lambda stack: stack.client.start_crawl(url, limit, engine, scrape_options),
        as_json=as_json,
        wait=wait,
    )


def scrape_batch(
    settings: Settings, urls: list[str], scrape_options: dict[str, Any] | None, *, as_json: bool, wait: bool
) -> None:
    """Raises `CrawlscopeError` when the batch does not succeed."""

    async def start(stack: Stack) -> str:
        started = await stack.client.start_batch(urls, scrape_options)
        if started.invalid_urls:
            complain(f"left out, because Firecrawl cannot scrape it: {', '.join(started.invalid_urls)}")
        return started.crawl_id

    _crawl(settings, start, as_json=as_json, wait=wait)


def _crawl(settings: Settings, start: Start, *, as_json: bool, wait: bool) -> None:
    async def work(stack: Stack) -> CrawlReport | None:
        crawl_id = await start(stack)
        if not wait:
            await _leave_alone(stack, crawl_id, as_json)
            return None
        return await _follow_to_its_end(stack, crawl_id, as_json)

    require_success(_with_service(settings, work))


def crawls(settings: Settings, limit: int, *, as_json: bool) -> None:
    listed = _with_service(settings, lambda stack: stack.client.crawls(limit))
    if as_json:
        _print_json(listed)
    else:
        stdout().print(render_crawls(listed, datetime.now(UTC)))


def profile(settings: Settings, crawl_id: str, *, as_json: bool, follow: bool) -> None:
    """Raises `CrawlscopeError` when a crawl that is followed does not succeed."""
    if follow:
        require_success(_with_service(settings, lambda stack: _follow_to_its_end(stack, crawl_id, as_json)))
    else:
        _with_service(settings, lambda stack: _print_profile(stack, crawl_id, as_json))


def compare(settings: Settings, crawl_id: str, against: str, *, as_json: bool) -> None:
    found = _with_service(settings, lambda stack: stack.client.compare(crawl_id, against))
    if as_json:
        _print_json(found)
    else:
        stdout().print(render_comparison(found))


def search(settings: Settings, request: SearchRequest, *, as_json: bool) -> None:
    response = _with_service(settings, lambda stack: stack.patiently(lambda: stack.client.search(request)))
    if as_json:
        _print_json(response)
        return
    console = stdout()
    console.print(render_results(request.query, response, console.width))


def cancel(settings: Settings, crawl_id: str, *, as_json: bool) -> None:
    answer = _with_service(settings, lambda stack: stack.client.cancel(crawl_id))
    if as_json:
        _print_json(answer)
    else:
        had_ended = "It had ended already."
        stdout().print("Cancelled. What was received is indexed." if answer.cancelled else had_ended)


def retry(settings: Settings, crawl_id: str, urls: list[str], *, rescrape: bool, as_json: bool) -> None:
    """Waits for the pages where the service ends with the command.

    Raises `CrawlscopeError` when not all that was asked for can be done.
    """

    async def work(stack: Stack) -> PagesQueued:
        retried = await stack.client.retry(crawl_id, urls, rescrape=rescrape)
        if as_json:
            _print_json(retried)
        else:
            stdout().print(render_retried(retried), soft_wrap=True)
        if stack.is_own:
            for begun in [crawl_id] * bool(retried.queued) + [retried.rescrape_crawl_id or ""]:
                if begun:
                    await _follow(stack, begun, as_json)
                    if not as_json:
                        await _print_profile(stack, begun, as_json)
        return retried

    if problem := complaint(_with_service(settings, work)):
        raise CrawlscopeError(problem)


def delete(settings: Settings, crawl_id: str, *, sure: bool, as_json: bool) -> None:
    """Unless `sure`, asks whoever sits at the terminal first."""
    if not sure:
        _confirm_deletion(_with_service(settings, lambda stack: stack.client.crawl(crawl_id)))
    deleted = _with_service(settings, lambda stack: stack.patiently(lambda: stack.client.delete(crawl_id)))
    if deleted.goes_on:
        complain(f"the crawl may go on at Firecrawl, which could not be told to stop it: {deleted.goes_on}")
    if as_json:
        _print_json(deleted)
    else:
        stdout().print(f"Crawl {plain(crawl_id)} is deleted.", soft_wrap=True, markup=False)


def _confirm_deletion(crawl: CrawlMetricsResponse) -> None:
    """Not to be called in an event loop, where Ctrl-C would not end the question."""
    running = ", which still runs" if crawl.status is CrawlStatus.IN_PROGRESS else ""
    pages = count(crawl.total_pages + crawl.pages_pending, "page")
    question = f"Delete the crawl of {plain(crawl.crawl_url)}{running}, and its {pages}?"
    if not typer.confirm(question, err=True):
        raise CrawlscopeError("nothing was deleted")


def reconcile(settings: Settings, crawl_id: str, *, as_json: bool) -> None:
    """Waits for the pages where the service ends with the command."""

    async def work(stack: Stack) -> None:
        found = await stack.client.reconcile(crawl_id)
        if as_json:
            _print_json(found)
        else:
            stdout().print(render_reconciled(found))
        if found.added and stack.is_own:
            await _follow(stack, crawl_id, as_json)

    _with_service(settings, work)


def watch(settings: Settings, crawl_id: str, limit: int | None, *, as_json: bool) -> None:
    """Raises `CrawlscopeError` when a page is not watched that could be asked for."""

    async def work(stack: Stack) -> CrawlWatched:
        watched = await stack.client.watch(crawl_id, limit)
        if stack.is_own:
            complain(
                f"no service keeps running: changedetection.io sends changes to {public_address(settings)}, "
                "where they are taken while one does, see `crawlscope up`"
            )
        return watched

    watched = _with_service(settings, work)
    if as_json:
        _print_json(watched)
    else:
        stdout().print(render_watched(watched))
    if watched.refused:
        first = watched.refused[0]
        pages = count(len(watched.refused), "page is", "pages are")
        raise CrawlscopeError(f"{pages} not watched, the first: {plain(first.url)}: {plain(first.reason)}")


def reindex(settings: Settings, *, as_json: bool) -> None:
    """Waits until the new index serves."""

    async def work(stack: Stack) -> IndexReport:
        begun = await stack.patiently(stack.client.begin_reindex)
        return await follow_reindex(
            stack.client, begun, Console(stderr=True, highlight=False), stack.recover, complain
        )

    serving = _with_service(settings, work)
    if as_json:
        _print_json(serving)
    else:
        stdout().print(reindexed_words(serving), markup=False)


def recount(settings: Settings, crawl_id: str, *, as_json: bool) -> None:
    counted = _with_service(settings, lambda stack: stack.client.recount(crawl_id))
    if as_json:
        _print_json(counted)
        return
    for column, difference in counted.changed.items():
        stdout().print(f"{column}: was {difference.was}, is {difference.counted}", markup=False)
    if not counted.changed:
        stdout().print("Every number is right.")


def replay(settings: Settings, which: dict[str, Any], *, as_json: bool) -> None:
    replayed = _with_service(settings, lambda stack: stack.client.replay(**which))
    if as_json:
        _print_json(replayed)
        return
    words = f"{count(replayed.deliveries, 'delivery', 'deliveries')} read again, {replayed.changed} changed"
    if replayed.crawls:
        words += f" in {count(len(replayed.crawls), 'crawl')}: {count(replayed.pages_queued, 'page')} queued"
    if replayed.newly_known:
        words += f"; {count(replayed.newly_known, 'event')} of a type that was not known before"
    if replayed.unreadable:
        words += f"; {replayed.unreadable} could not be read"
    stdout().print(f"{words}.")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Ends in order on SIGTERM and SIGHUP as on Ctrl-C, with the exit code that shells expect of them."""
    received: list[int] = []

    async def watched() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end, number)
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        sys.exit(128 + received[0] if received else 1)


def require_success(report: CrawlReport | None) -> None:
    """Raises `CrawlscopeError` with the reason why a followed crawl's work is not done."""
    if report is not None and (reason := failure(report)):
        raise CrawlscopeError(reason)


def complain(words: str) -> None:
    """One line on stderr."""
    typer.echo(f"crawlscope: {' '.join(words.split())}", err=True)


def stdout() -> Console:
    return Console(highlight=False)


def _with_service(settings: Settings, work: Callable[[Stack], Awaitable[T]]) -> T:
    async def with_stack() -> T:
        async with Stack(settings) as stack:
            with Console(stderr=True).status("Starting Crawlscope …"):
                await stack.bring_up()
            return await work(stack)

    return run(with_stack())


async def _follow_to_its_end(stack: Stack, crawl_id: str, as_json: bool) -> CrawlReport:
    """The crawl's id comes first: it is what every other command asks for."""
    if not as_json:
        stdout().print(f"Crawl {plain(crawl_id)}", soft_wrap=True, markup=False)
    await _follow(stack, crawl_id, as_json)
    report = await _print_profile(stack, crawl_id, as_json)
    if not as_json and (words := shortfall(report)):
        stdout().print(words, soft_wrap=True, markup=False)
    return report


async def _follow(stack: Stack, crawl_id: str, as_json: bool) -> CrawlMetricsResponse:
    """With JSON the bar goes to stderr, and only where somebody watches."""
    console = Console(stderr=as_json, highlight=False)
    try:
        if as_json and not console.is_terminal:
            return await follow(stack.client, crawl_id, ignore, stack.recover, complain)
        with shown_on(console) as show:
            return await follow(stack.client, crawl_id, show, stack.recover, complain)
    except asyncio.CancelledError:
        goes_on = "goes on once a service runs" if stack.is_own else "goes on"
        known = plain(crawl_id)
        complain(
            f"crawl {known} {goes_on}. Follow it again: crawlscope profile {known} --follow. "
            f"Cancel it: crawlscope cancel {known}"
        )
        raise


async def _leave_alone(stack: Stack, crawl_id: str, as_json: bool) -> None:
    started = await stack.client.crawl(crawl_id)
    if as_json:
        _print_json(started)
    else:
        typer.echo(crawl_id)
    if stack.is_own:
        complain(f"no service keeps running: {_what_waits(started)} when one does, see `crawlscope up`")


def _what_waits(started: CrawlMetricsResponse) -> str:
    at_firecrawl = started.engine == Engine.FIRECRAWL
    return "Firecrawl crawls, and its pages are fetched" if at_firecrawl else "the crawl goes on"


async def _print_profile(stack: Stack, crawl_id: str, as_json: bool) -> CrawlReport:
    report = await gather_report(stack.client, crawl_id)
    if as_json:
        _print_json(report.crawl)
    else:
        stdout().print(render_profile(report))
    return report


def _print_json(answer: BaseModel) -> None:
    typer.echo(answer.model_dump_json(indent=2))
