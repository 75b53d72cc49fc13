"""The commands that run a part of the service, check it, or show it."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import structlog
import typer
import uvloop

from crawlscope.cli.common import (
    Json,
    collect_only_new_objects,
    complain,
    process_settings,
    quiet_settings,
    run,
    terminal,
)
from crawlscope.core.errors import CrawlscopeError

UP_GRACE_SECONDS = 60.0
"""Time limit for the orderly shutdown of `up` after its parent process has ended."""
STOP_SECONDS = 25.0
"""Time limit for the orderly shutdown of another process. After it, the process exits at once, as if it were
killed."""

log = structlog.get_logger(__name__)


def up() -> None:
    """Run the whole service: database, index, API and workers."""
    from crawlscope.core.secrets import new_sign_in_token
    from crawlscope.database import revision
    from crawlscope.database.connect import connected_database
    from crawlscope.processes.supervisor.lifeline import follow_parent
    from crawlscope.processes.supervisor.up import up as keep_up
    from crawlscope.processes.supervisor.worker_deaths import requeue_orphans

    settings = process_settings("up")

    async def prepare() -> None:
        """Upgrades the schema, and releases jobs that the workers of the last run left unfinished."""
        async with connected_database(settings) as database:
            if not await revision.serves_this_version(database):
                from crawlscope.database import schema

                await schema.upgrade(database)
            if settings.embedded_database:
                await requeue_orphans(database)

    def announce(url: str) -> None:
        typer.echo(f"Crawlscope runs at {url}. Stop it with Ctrl-C.")
        link = f"{url}/sign-in?token={new_sign_in_token(settings.data_dir)}"
        typer.echo(f"Open the dashboard; this link signs you in once, within an hour: {link}")

    follow_parent(UP_GRACE_SECONDS)
    collect_only_new_objects()
    raise typer.Exit(asyncio.run(keep_up(settings, announce, prepare)))


def index(
    shard: Annotated[int, typer.Option(help="The shard of the index to serve, counted from 1.")] = 1,
) -> None:
    """Run only the process of the embedded index, or of one of its shards."""
    from crawlscope.processes.index_process import run_index
    from crawlscope.processes.supervisor.lifeline import follow_parent

    settings = process_settings("index")
    follow_parent()
    _until_stopped(lambda stopping: run_index(settings, stopping, shard))


def serve(
    without_index: Annotated[
        bool, typer.Option("--without-index", help="Start no process for the embedded index.")
    ] = False,
    shared_port: Annotated[
        bool,
        typer.Option("--shared-port", help="Be one of several API processes that listen on the same port."),
    ] = False,
) -> None:
    """Run only the API processes, and the process of the embedded index."""
    from crawlscope.processes.supervisor.lifeline import follow_parent

    settings = process_settings("api")
    if settings.api_processes > 1 and not shared_port:
        from crawlscope.processes.supervisor.api_processes import serve_several

        follow_parent(UP_GRACE_SECONDS)
        _until_stopped(lambda stopping: serve_several(settings, stopping, keeps_index=not without_index))
        return
    from crawlscope.api.serve import serve as serve_http

    follow_parent()
    _until_stopped(
        lambda stopping: serve_http(
            settings, stopping, keeps_index=not without_index, shares_port=shared_port
        )
    )


def worker(
    only: Annotated[
        Literal["index", "crawl"] | None,
        typer.Option(help="Process only jobs of this kind. Default: both kinds."),
    ] = None,
) -> None:
    """Run one worker process."""
    from crawlscope.processes.supervisor.lifeline import follow_parent
    from crawlscope.processes.worker.process import Kind, run_worker

    settings = process_settings(f"{only or ''}worker")
    follow_parent()
    kinds: set[Kind] = {only} if only else {"index", "crawl"}
    _until_stopped(lambda stopping: run_worker(settings, kinds, stopping))


def mcp() -> None:
    """Run the MCP server on stdin and stdout. Agent programs start this command."""
    from crawlscope.cli.mcp_stdio import serve_mcp

    if sys.stdin.isatty():
        complain("this command speaks MCP with an agent program on stdin and stdout; press Ctrl-D to end it")
    run(serve_mcp(quiet_settings()))


def doctor(
    url: Annotated[
        str | None,
        typer.Option(help="Check the service at this URL from outside, with a crawl of two pages."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="With --url: the site to crawl. Default: two pages that this command serves."),
    ] = None,
    plain_http: Annotated[
        bool,
        typer.Option("--plain-http", help="With --url: send the API secret to another machine without TLS."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the installation and all dependencies, or a deployed service from outside."""
    from crawlscope.cli.doctor import Examination, examine, render_finding
    from crawlscope.cli.remote_check import examine_from_outside

    if site is not None and url is None:
        raise typer.BadParameter("it needs --url", param_hint="--site")
    settings = quiet_settings()
    checks = (
        examine(settings) if url is None else examine_from_outside(url, settings, site, plain_http=plain_http)
    )

    async def examine_all() -> Examination:
        """Prints each finding as it is made, or all at the end as JSON."""
        findings = []
        async for finding in checks:
            findings.append(finding)
            if not as_json:
                terminal().print(render_finding(finding))
        return Examination(findings=findings)

    examination = run(examine_all())
    if as_json:
        typer.echo(examination.model_dump_json(indent=2))
    if failed := sum(not finding.ok for finding in examination.findings):
        raise CrawlscopeError(f"{failed} of the checks failed")


def demo() -> None:
    """Crawl a demo website on this machine, print its profile and search it."""
    from crawlscope.cli.demo import demo_settings, run_demo

    run(run_demo(demo_settings(quiet_settings()), terminal()))


def _until_stopped(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs the work until it ends. SIGTERM and SIGINT set the event `stopping`, and limit what is left.

    A database whose machine is gone answers nothing, not even an error, for as long as it is asked.
    """

    async def stoppable() -> None:
        stopping = asyncio.Event()

        def stop() -> None:
            if not stopping.is_set():
                stopping.set()
                threading.Thread(target=exit_after_timeout, name="stop", daemon=True).start()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await work(stopping)

    def exit_after_timeout() -> None:
        time.sleep(STOP_SECONDS)
        log.error("stop_given_up", after_seconds=STOP_SECONDS)
        os._exit(1)

    collect_only_new_objects()
    uvloop.run(stoppable())
