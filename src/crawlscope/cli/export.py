"""The command that takes the pages of a crawl with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crawlscope.cli.common import CrawlId, Json, show, with_service
from crawlscope.core.errors import UsageError
from crawlscope.core.vocabulary import ExportFormat

if TYPE_CHECKING:
    from crawlscope.api.stack import Stack
    from crawlscope.cli.output.exported import Exported


def export(
    crawl_id: CrawlId,
    format: Annotated[  # noqa: A002 - the option's name
        ExportFormat, typer.Option(help="A page a line, a Parquet file, or a folder of Markdown files.")
    ] = ExportFormat.JSONL,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File or folder to make. Default: stdout for jsonl."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export all pages of a crawl with their texts. Nothing is left of an export that ends early."""
    from crawlscope.api.rendering.words import count
    from crawlscope.cli.output.exported import export_to, print_lines

    if output is None and format is not ExportFormat.JSONL:
        raise typer.BadParameter(f"{format.value} needs a place: --output PATH", param_hint="--output")
    if output is None and as_json:
        raise typer.BadParameter("the lines are JSON already; with it, give --output", param_hint="--json")
    if output is None:
        with_service(lambda stack: print_lines(stack.client, crawl_id))
        return
    if output.exists() or output.is_symlink():
        raise UsageError(f"{output} exists already: choose another --output, or remove it")
    place = output

    async def write(stack: "Stack") -> "Exported":
        return await export_to(stack.client, crawl_id, format, place)

    exported = with_service(write)
    show(exported, as_json, lambda: f"{exported.path}: {count(exported.pages, 'page')}")
