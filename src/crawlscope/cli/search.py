"""The commands on the index: search it, build it anew."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crawlscope.cli.common import Json, complain, show, terminal, with_service

if TYPE_CHECKING:
    from crawlscope.api.stack import Stack
    from crawlscope.insights.schemas import IndexReport

MAX_RESULTS = 100
MAX_QUERY_LENGTH = 4_096


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    mode: Annotated[
        Literal["hybrid", "semantic", "keyword"],
        typer.Option(help="Match words (keyword), meaning (semantic), or both (hybrid)."),
    ] = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=MAX_RESULTS, help="Maximum number of pages.")] = 10,
    as_json: Json = False,
) -> None:
    """Search the indexed pages."""
    from crawlscope.cli.output.results import render_results

    if not 0 < len(query.strip()) <= MAX_QUERY_LENGTH:
        raise typer.BadParameter(f"a query has 1 to {MAX_QUERY_LENGTH:,} characters", param_hint="QUERY")
    response = with_service(
        lambda stack: stack.patiently(lambda: stack.client.search(query, mode=mode, limit=limit))
    )
    show(response, as_json, lambda: render_results(response, terminal().width))


def reindex(as_json: Json = False) -> None:
    """Build a new index from the stored contents with the configured embedder, and switch to it."""
    from crawlscope.cli.output.reindex import reindexed_text

    serving = with_service(rebuild_index)
    show(serving, as_json, lambda: reindexed_text(serving))


async def rebuild_index(stack: "Stack") -> "IndexReport":
    """Returns the index that serves at the end."""
    from crawlscope.cli.output.reindex import follow_reindex

    begun = await stack.patiently(stack.client.begin_reindex)
    return await follow_reindex(stack.client, begun, stack.recover, complain)
