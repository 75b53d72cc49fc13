"""The common base of commands: settings, the client of the service, and output.

Importing this module loads no client and no terminal library; its functions load what they use.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel

from crawlscope.core import logs
from crawlscope.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from crawlscope.api.stack import Stack

T = TypeVar("T")

NEW_OBJECTS = 10_000
"""More than a search makes, which are in no cycles. Garbage is collected after so many."""

Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
CrawlId = Annotated[str, typer.Argument(metavar="CRAWL_ID")]


def process_settings(process: str) -> Settings:
    """Settings of a command that logs as `process`."""
    settings = load_settings()
    logs.configure(settings.log_level, process)
    return settings


def quiet_settings() -> Settings:
    """Settings of a client command: its stderr shows only messages for the user."""
    settings = load_settings()
    logs.configure("DEBUG" if settings.log_level == "DEBUG" else "ERROR", "cli")
    return settings


def with_service(work: "Callable[[Stack], Awaitable[T]]") -> T:
    """Runs `work` with the running service, or with one that stops when the command ends."""
    from rich.console import Console

    from crawlscope.api.stack import Stack

    settings = quiet_settings()

    async def with_stack() -> T:
        async with Stack(settings) as stack:
            if not await stack.client.is_ready():
                with Console(stderr=True).status("Starting Crawlscope …"):
                    await stack.bring_up()
            return await work(stack)

    return run(with_stack())


def collect_only_new_objects() -> None:
    """Starts garbage collection without the objects that are loaded: they live as long as the process."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)
    gc.enable()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Shuts down in order on SIGTERM and SIGHUP as on Ctrl-C, and exits with the code that shells expect."""
    received: list[int] = []

    async def interruptible() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt, number)
        return await work

    collect_only_new_objects()
    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        sys.exit(128 + received[0] if received else 1)


def show(answer: BaseModel, as_json: bool, rendered: "Callable[[], RenderableType]") -> None:
    """Prints the answer as JSON, or `rendered` for people: a string in one line, however long."""
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
        return
    shown = rendered()
    if isinstance(shown, str):
        typer.echo(shown)
    else:
        terminal().print(shown)


def complain(message: str) -> None:
    """Prints one line on stderr."""
    typer.echo(f"crawlscope: {' '.join(message.split())}", err=True)


def terminal() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
