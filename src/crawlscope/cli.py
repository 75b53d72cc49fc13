"""The command line. Exit codes: 0 done, 1 the work failed (stderr says why in one line), 2 wrong usage."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import typer

from crawlscope import __version__, logs
from crawlscope.database import schema
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.errors import CrawlscopeError, SettingsError
from crawlscope.serve import serve as serve_http
from crawlscope.settings import Settings, load_settings
from crawlscope.supervise.lifeline import follow_parent
from crawlscope.supervise.up import up as keep_up
from crawlscope.worker import Kind, run_worker

app = typer.Typer(
    name="crawlscope",
    help="A flight recorder for crawls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="The database's tables.", no_args_is_help=True)
app.add_typer(db, name="db")


@app.callback(invoke_without_command=True)
def crawlscope(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def up() -> None:
    """Start everything and keep it running: database, API, workers."""
    settings = _settings("up")
    code = asyncio.run(keep_up(settings, _announce, lambda: _upgrade(settings)))
    raise typer.Exit(code)


@app.command()
def serve() -> None:
    """Run the API process."""
    settings = _settings("api")
    follow_parent()
    _until_stopped(lambda stopping: serve_http(settings, stopping))


@app.command()
def worker(
    only: Annotated[
        Literal["index", "crawl"] | None, typer.Option(help="Take only jobs of this kind.")
    ] = None,
) -> None:
    """Run a worker process."""
    settings = _settings(f"{only or ''}worker")
    follow_parent()
    kinds: set[Kind] = {only} if only else {"index", "crawl"}
    _until_stopped(lambda stopping: run_worker(settings, kinds, stopping))


@db.command("upgrade")
def db_upgrade(revision: Annotated[str, typer.Argument()] = "head") -> None:
    """Bring the tables up to a revision."""
    _with_database(lambda database: schema.upgrade(database, revision))


@db.command("downgrade")
def db_downgrade(revision: Annotated[str, typer.Argument()] = "-1") -> None:
    """Take the tables one revision back, or to a revision; `base` removes all."""
    _with_database(lambda database: schema.downgrade(database, revision))


@db.command("current")
def db_current() -> None:
    """Print the revision of the tables."""

    async def show(database: Database) -> None:
        typer.echo(await schema.current_revision(database) or "none")

    _with_database(show)


def main() -> None:
    try:
        app()
    except CrawlscopeError as error:
        typer.echo(f"crawlscope: {error}", err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


def _settings(process: str) -> Settings:
    settings = load_settings()
    logs.configure(settings.log_level, process)
    return settings


def _announce(url: str) -> None:
    typer.echo(f"Crawlscope runs at {url}. Stop it with Ctrl-C.")


async def _upgrade(settings: Settings) -> None:
    async with connected_database(settings) as database:
        await schema.upgrade(database)


def _until_stopped(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs until the work ends or SIGTERM or SIGINT asks it to."""

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await work(stopping)

    asyncio.run(run())


def _with_database(action: Callable[[Database], Awaitable[None]]) -> None:
    settings = _settings("db")

    async def run() -> None:
        async with connected_database(settings) as database:
            await action(database)

    asyncio.run(run())
