"""The command line. Exit codes: 0 done, 1 the work failed (stderr gives the reason), 2 wrong usage.

Each command imports its dependencies when it runs, because loading everything takes seconds.
"""

import atexit
import gc
import io
import logging
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crawlscope import __version__
from crawlscope.cli import backup, crawls, database, export, keys, search, service
from crawlscope.cli.common import complain
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import VALIDATOR_PREFIX, is_text

COMMANDS = (
    service.up,
    service.index,
    service.serve,
    service.worker,
    crawls.crawl,
    crawls.cancel,
    crawls.crawls,
    crawls.top,
    crawls.profile,
    crawls.compare,
    search.search,
    crawls.retry,
    crawls.delete,
    export.export,
    crawls.reconcile,
    crawls.watch,
    crawls.recount,
    crawls.replay,
    service.mcp,
    search.reindex,
    backup.backup,
    backup.restore,
    service.doctor,
    service.demo,
)
"""In the order of the help."""


class Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Says what is wrong with an option without the prefix that Pydantic gives Typer's words."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(VALIDATOR_PREFIX)
            raise


app = typer.Typer(
    name="crawlscope",
    cls=Commands,
    help="A flight recorder for crawls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="db")


@app.callback(invoke_without_command=True)
def crawlscope(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    gc.disable()  # until the command is loaded: examining what it loads takes a fifth of the start …
    atexit.register(gc.freeze)  # … and as much at the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # characters that the terminal cannot encode become "?"
    if not all(map(is_text, sys.argv)):
        complain("every argument must be text in UTF-8")
        sys.exit(2)
    try:
        app()
    except CrawlscopeError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected error", exc_info=error)
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        complain(f"unexpected {type(error).__name__}{place}: {error}")
        sys.exit(1)
