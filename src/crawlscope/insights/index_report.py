"""Which index serves, and how far the one has come that is to take its place."""

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.indexing import documents
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.repository import Generation
from crawlscope.insights.responses import IndexReport, ReindexResponse


async def report_indexes(connection: AsyncConnection) -> ReindexResponse:
    live = await generations.live(connection)
    return ReindexResponse(
        serving=await _report(connection, live.serving), filling=await _report(connection, live.replacement)
    )


async def _report(connection: AsyncConnection, generation: Generation | None) -> IndexReport | None:
    if generation is None:
        return None
    return IndexReport(
        name=generation.name,
        embedder=generation.recipe.identity.description,
        chunk_tokens=generation.recipe.chunk_tokens,
        problem=generation.problem,
        created_at=generation.created_at,
        switched_at=generation.switched_at,
        **vars(await documents.count(connection, generation.id)),
    )
