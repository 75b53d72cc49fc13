"""The demo: crawls a real website on this machine, indexes it, and shows what the recorder saw."""

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from crawlscope.api.rendering.profile import render_profile
from crawlscope.api.report import gather_report
from crawlscope.cli import demo_site
from crawlscope.cli.commands import require_success
from crawlscope.cli.output.follow import follow, shown_on
from crawlscope.cli.output.results import render_results
from crawlscope.cli.stack import Stack
from crawlscope.core.settings import Settings, default_data_dir, load_settings
from crawlscope.search.schemas import SearchRequest

PORT = 8109
"""Of the site, where it is free: pages are known by their URL, so that a second demo finds them unchanged."""
QUERIES = (
    "run a function in another thread",
    "how do I avoid a deadlock",
    "SequenceMatcher.get_close_matches",
)
RESULTS_SHOWN = 2


def demo_settings(settings: Settings) -> Settings:
    """With a data folder for the demo alone, unless the user chose one."""
    if "data_dir" in settings.model_fields_set:
        return settings
    return load_settings(data_dir=default_data_dir() / "demo")


async def run_demo(settings: Settings, console: Console) -> None:
    """Raises `CrawlscopeError` when the crawl does not succeed."""
    with tempfile.TemporaryDirectory(prefix="crawlscope-demo-") as folder:
        with console.status("Writing a website: the documentation of Python's standard library …"):
            pages = demo_site.build(Path(folder))
        with demo_site.serve(Path(folder), PORT) as url:
            console.print(f"A website of {pages} pages, written by pydoc: {url}", soft_wrap=True)
            async with Stack(settings) as stack:
                with console.status("Starting PostgreSQL, the API and the workers …"):
                    await stack.bring_up()
                crawl_id = await _crawl(stack, console, url)
                for query in QUERIES:
                    await _search(stack, console, query)
    console.print(_what_next(settings, crawl_id), soft_wrap=True)


async def _crawl(stack: Stack, console: Console, url: str) -> str:
    console.print("Crawling it, page by page: fetch, deliver, chunk, embed, index.\n")
    crawl_id = await stack.client.start_crawl(url, None, "builtin")
    with shown_on(console) as show:
        await follow(stack.client, crawl_id, show, stack.recover, console.print)
    report = await gather_report(stack.client, crawl_id)
    console.print(render_profile(report))
    require_success(report)
    return crawl_id


async def _search(stack: Stack, console: Console, query: str) -> None:
    request = SearchRequest(query=query, limit=RESULTS_SHOWN)
    response = await stack.patiently(lambda: stack.client.search(request))
    console.print(Text.assemble(("Search: ", "bold"), (query, "bold yellow"), "\n"))
    console.print(render_results(query, response, console.width))
    console.print()


def _what_next(settings: Settings, crawl_id: str) -> Text:
    chosen = "" if settings.data_dir == default_data_dir() else _variable(settings)
    commands = (
        ("search what was crawled", "search 'parse a date'"),
        ("see this profile again", f"profile {crawl_id}"),
        ("crawl a site of yours", "crawl https://example.com --limit 50"),
        ("keep everything running", "up"),
    )
    lines = [(f"  # {purpose}\n", "dim") for purpose, _ in commands]
    words: list[str | tuple[str, str]] = [("What to try next\n", "bold")]
    for line, (_, command) in zip(lines, commands, strict=True):
        words += [line, f"  {chosen}{_program()} {command}\n"]
    return Text.assemble(*words)


def _program() -> str:
    """As the user can type it: the environment of `make setup` need not be on the path."""
    return "crawlscope" if shutil.which("crawlscope") else shlex.quote(sys.argv[0])


def _variable(settings: Settings) -> str:
    return f"CRAWLSCOPE_DATA_DIR={shlex.quote(str(settings.data_dir))} "
