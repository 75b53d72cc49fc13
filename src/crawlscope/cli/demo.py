"""The demo: crawls a website on this machine, prints the profile of the crawl, and searches the pages."""

import shlex
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from crawlscope.api.rendering.outcome import failure
from crawlscope.api.rendering.profile import render_profile
from crawlscope.api.stack import Stack
from crawlscope.cli import demo_site
from crawlscope.cli.output.follow import follow, shown_on
from crawlscope.cli.output.results import render_results
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import Settings, default_data_dir, load_settings

PORT = 8109
"""The website's, if it is free. A second demo on the same port finds the same URLs and unchanged pages."""
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
                    response = await stack.patiently(partial(stack.client.search, query, limit=RESULTS_SHOWN))
                    console.print(Text.assemble(("Search: ", "bold"), (query, "bold yellow"), "\n"))
                    console.print(render_results(response, console.width))
                    console.print()
    console.print(_next_steps(settings, crawl_id), soft_wrap=True)


async def _crawl(stack: Stack, console: Console, url: str) -> str:
    console.print("Crawling it, page by page: fetch, deliver, chunk, embed, index.\n")
    crawl_id = await stack.client.start_crawl(url, None, "builtin")
    with shown_on(console) as show:
        await follow(stack.client, crawl_id, show, stack.recover, console.print)
    report = await stack.client.report(crawl_id)
    console.print(render_profile(report))
    if reason := failure(report):
        raise CrawlscopeError(reason)
    return crawl_id


def _next_steps(settings: Settings, crawl_id: str) -> Text:
    # `make setup` does not put its environment on the path, so the command names the program's file then.
    program = "crawlscope" if shutil.which("crawlscope") else shlex.quote(sys.argv[0])
    if settings.data_dir != default_data_dir():
        program = f"CRAWLSCOPE_DATA_DIR={shlex.quote(str(settings.data_dir))} {program}"
    steps = (
        ("search the crawled pages", "search 'parse a date'"),
        ("show this profile again", f"profile {crawl_id}"),
        ("crawl a website of yours", "crawl https://example.com --limit 50"),
        ("keep everything running", "up"),
    )
    text = Text.assemble(("What to try next\n", "bold"))
    for purpose, command in steps:
        text.append(f"  # {purpose}\n", "dim")
        text.append(f"  {program} {command}\n")
    return text
