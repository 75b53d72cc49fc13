"""The command line. Exit codes: 0 done, 1 the work failed (stderr gives the reason), 2 wrong usage.

Each command imports its dependencies when it runs, because loading everything takes seconds.
"""

import asyncio
import io
import json
import logging
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crawlscope import __version__
from crawlscope.core import logs
from crawlscope.core.errors import CrawlscopeError, SettingsError, UsageError
from crawlscope.core.settings import Settings, is_text, load_settings

if TYPE_CHECKING:
    from crawlscope.database.engine import Database

UP_GRACE_SECONDS = 60.0
"""Time limit for the orderly shutdown of `up` after its parent process has ended."""
MOST_PAGES = 1_000_000
MOST_CRAWLS = 1_000
MOST_RESULTS = 100
MOST_WATCHES = 10_000
LONGEST_QUERY = 4_096

Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
CrawlId = Annotated[str, typer.Argument(metavar="CRAWL_ID")]

app = typer.Typer(
    name="crawlscope",
    help="A flight recorder for crawls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="Manage the database schema.", no_args_is_help=True)
app.add_typer(db, name="db")


@app.callback(invoke_without_command=True)
def crawlscope(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def up() -> None:
    """Run the whole service: database, API and workers."""
    from crawlscope.processes.supervisor.lifeline import follow_parent
    from crawlscope.processes.supervisor.up import up as keep_up

    settings = _settings("up")
    follow_parent(UP_GRACE_SECONDS)
    code = asyncio.run(keep_up(settings, _announce, lambda: _prepare(settings)))
    raise typer.Exit(code)


@app.command()
def serve() -> None:
    """Run only the API process."""
    from crawlscope.api.serve import serve as serve_http
    from crawlscope.processes.supervisor.lifeline import follow_parent

    settings = _settings("api")
    follow_parent()
    _until_stopped(lambda stopping: serve_http(settings, stopping))


@app.command()
def worker(
    only: Annotated[
        Literal["index", "crawl"] | None,
        typer.Option(help="Process only jobs of this kind. Default: both kinds."),
    ] = None,
) -> None:
    """Run one worker process."""
    from crawlscope.processes.supervisor.lifeline import follow_parent
    from crawlscope.processes.worker.process import Kind, run_worker

    settings = _settings(f"{only or ''}worker")
    follow_parent()
    kinds: set[Kind] = {only} if only else {"index", "crawl"}
    _until_stopped(lambda stopping: run_worker(settings, kinds, stopping))


@app.command()
def crawl(
    urls: Annotated[list[str], typer.Argument(metavar="URL...")],
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_PAGES, help="Maximum number of pages, including the start page."),
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
    from crawlscope.cli import commands
    from crawlscope.crawls.requests import check_target

    try:
        targets = [check_target(url) for url in urls]
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint="URL") from None
    options = _json_object(scrape_options, "--scrape-options")
    if len(targets) == 1:
        [target] = targets
        commands.crawl(_quiet_settings(), target, limit, engine, options, as_json=as_json, wait=not no_wait)
        return
    if limit is not None or engine == "builtin":
        raise typer.BadParameter(
            "several URLs are scraped by Firecrawl, without --limit and without --engine builtin",
            param_hint="URL",
        )
    commands.scrape_batch(_quiet_settings(), targets, options, as_json=as_json, wait=not no_wait)


@app.command()
def cancel(crawl_id: CrawlId, as_json: Json = False) -> None:
    """Cancel a crawl. Pages that were already received are still indexed."""
    from crawlscope.cli import commands

    commands.cancel(_quiet_settings(), crawl_id, as_json=as_json)


@app.command()
def crawls(
    limit: Annotated[int, typer.Option(min=1, max=MOST_CRAWLS, help="Maximum number of crawls.")] = 50,
    as_json: Json = False,
) -> None:
    """List crawls, newest first."""
    from crawlscope.cli import commands

    commands.crawls(_quiet_settings(), limit, as_json=as_json)


@app.command()
def profile(
    crawl_id: CrawlId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow a running crawl until every page is searchable.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the results and the timing of a crawl."""
    from crawlscope.cli import commands

    commands.profile(_quiet_settings(), crawl_id, as_json=as_json, follow=follow)


@app.command()
def compare(
    crawl_id: Annotated[str, typer.Argument(metavar="A")],
    against: Annotated[str, typer.Argument(metavar="B")],
    as_json: Json = False,
) -> None:
    """Compare two crawls, stage by stage."""
    from crawlscope.cli import commands

    commands.compare(_quiet_settings(), crawl_id, against, as_json=as_json)


@app.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    mode: Annotated[
        Literal["hybrid", "semantic", "keyword"],
        typer.Option(help="Match words (keyword), meaning (semantic), or both (hybrid)."),
    ] = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=MOST_RESULTS, help="Maximum number of pages.")] = 10,
    as_json: Json = False,
) -> None:
    """Search the indexed pages."""
    from crawlscope.cli import commands
    from crawlscope.search.schemas import SearchRequest

    if not 0 < len(query.strip()) <= LONGEST_QUERY:
        raise typer.BadParameter(f"a query has 1 to {LONGEST_QUERY:,} characters", param_hint="QUERY")
    request = SearchRequest(query=query, mode=mode, limit=limit)
    commands.search(_quiet_settings(), request, as_json=as_json)


@app.command()
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
    from crawlscope.cli import commands

    commands.retry(_quiet_settings(), crawl_id, url or [], rescrape=rescrape, as_json=as_json)


@app.command()
def delete(
    crawl_id: CrawlId,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a crawl and its pages. A running crawl is cancelled first."""
    from crawlscope.cli import commands

    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(
            "stdin is not a terminal, so the command cannot ask: confirm with --yes", param_hint="--yes"
        )
    commands.delete(_quiet_settings(), crawl_id, sure=yes, as_json=as_json)


@app.command()
def reconcile(crawl_id: CrawlId, as_json: Json = False) -> None:
    """Compare a crawl with Firecrawl's records, and fetch missing pages."""
    from crawlscope.cli import commands

    commands.reconcile(_quiet_settings(), crawl_id, as_json=as_json)


@app.command()
def watch(
    crawl_id: CrawlId,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST_WATCHES, help="Maximum number of new watches.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make changedetection.io watch the pages of a crawl and report changes to Crawlscope."""
    from crawlscope.cli import commands

    commands.watch(_quiet_settings(), crawl_id, limit, as_json=as_json)


@app.command()
def recount(crawl_id: CrawlId, as_json: Json = False) -> None:
    """Recompute the counts and totals of a crawl from its records."""
    from crawlscope.cli import commands

    commands.recount(_quiet_settings(), crawl_id, as_json=as_json)


@app.command()
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
    from crawlscope.cli import commands

    which = {
        "crawl_id": crawl_id,
        "event_type": event_type,
        "noted": noted,
        "since": since and _with_zone(since),
        "until": until and _with_zone(until),
    }
    given = {name: value for name, value in which.items() if value is not None}
    commands.replay(_quiet_settings(), given, as_json=as_json)


@app.command()
def mcp() -> None:
    """Run the MCP server on stdin and stdout. Agent programs start this command."""
    from crawlscope.cli import commands, mcp_stdio

    if sys.stdin.isatty():
        commands.complain(
            "this command speaks MCP with an agent program on stdin and stdout; press Ctrl-D to end it"
        )
    commands.run(mcp_stdio.serve_mcp(_quiet_settings()))


@app.command()
def reindex(as_json: Json = False) -> None:
    """Build a new index from the stored pages with the configured embedder, and switch to it."""
    from crawlscope.cli import commands

    commands.reindex(_quiet_settings(), as_json=as_json)


@app.command()
def doctor() -> None:
    """Check the installation and all dependencies."""
    from crawlscope.cli import commands, doctor
    from crawlscope.cli.output.findings import print_findings

    failed = commands.run(print_findings(commands.stdout(), doctor.examine(_quiet_settings())))
    if failed:
        raise CrawlscopeError(f"{failed} of the checks failed")


@app.command()
def demo() -> None:
    """Crawl a demo website on this machine, print its profile and search it."""
    from crawlscope.cli import commands
    from crawlscope.cli.demo import demo_settings, run_demo

    commands.run(run_demo(demo_settings(_quiet_settings()), commands.stdout()))


@db.command("upgrade")
def db_upgrade(revision: Annotated[str, typer.Argument()] = "head") -> None:
    """Upgrade the schema to a revision. Default: the newest."""
    from crawlscope.database import schema

    _with_database(lambda database: schema.upgrade(database, revision))


@db.command("downgrade")
def db_downgrade(revision: Annotated[str, typer.Argument()] = "-1") -> None:
    """Downgrade the schema by one revision, or to the given revision. `base` removes all tables."""
    from crawlscope.database import schema

    _with_database(lambda database: schema.downgrade(database, revision))


@db.command("current")
def db_current() -> None:
    """Print the revision of the schema."""
    from crawlscope.database import revision

    async def show(database: "Database") -> None:
        typer.echo(await revision.current_revision(database) or "none")

    _with_database(show)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # characters that the terminal cannot encode become "?"
    if not all(map(is_text, sys.argv)):
        _complain("every argument must be text in UTF-8")
        sys.exit(2)
    try:
        app()
    except CrawlscopeError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected error", exc_info=error)
        _complain(f"unexpected {type(error).__name__}{_place(error)}: {error}")
        sys.exit(1)


def _complain(words: str) -> None:
    typer.echo(f"crawlscope: {' '.join(words.split())}", err=True)


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _settings(process: str) -> Settings:
    settings = load_settings()
    logs.configure(settings.log_level, process)
    return settings


def _quiet_settings() -> Settings:
    """Settings of a client command: its stderr shows only messages for the user."""
    settings = load_settings()
    logs.configure("DEBUG" if settings.log_level == "DEBUG" else "ERROR", "cli")
    return settings


def _with_zone(time: datetime) -> str:
    """In ISO 8601. The default time zone is UTC."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _json_object(text: str | None, option: str) -> "dict[str, Any] | None":
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


def _announce(url: str) -> None:
    typer.echo(f"Crawlscope runs at {url}. Stop it with Ctrl-C.")


async def _prepare(settings: Settings) -> None:
    """Upgrades the schema, and releases jobs that the workers of the last run left unfinished."""
    from crawlscope.database import revision
    from crawlscope.database.connect import connected_database
    from crawlscope.processes.supervisor.worker_deaths import requeue_orphans

    async with connected_database(settings) as database:
        if await revision.current_revision(database) != revision.NEWEST:
            from crawlscope.database import schema

            await schema.upgrade(database)
        if settings.embedded_database:
            await requeue_orphans(database)


def _until_stopped(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs the work until it ends. SIGTERM and SIGINT set the event `stopping`."""

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await work(stopping)

    asyncio.run(run())


def _with_database(action: "Callable[[Database], Awaitable[None]]") -> None:
    from crawlscope.database.connect import connected_database

    settings = _settings("db")

    async def run() -> None:
        async with connected_database(settings) as database:
            await action(database)

    asyncio.run(run())
