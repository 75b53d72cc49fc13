"""Documents that programs bring: what waits is bounded, and what is missing is named."""

import asyncio
from collections.abc import AsyncIterator

from crawlscope.api.http.index import MAX_BODIES
from tests.api.http.conftest import Serve
from tests.support.polling import eventually

DOCUMENT = b'{"url": "https://example.com/a", "markdown": "A text."}'
JSON = {"Content-Type": "application/json"}


async def test_bodies_that_wait_are_bounded(serve: Serve) -> None:
    service = await serve(max_body_bytes=1_024)
    let_go = asyncio.Event()
    sent = list[bytes]()

    async def slowly() -> AsyncIterator[bytes]:
        """A body whose size is not announced."""
        sent.append(DOCUMENT)
        yield DOCUMENT
        await let_go.wait()

    async with asyncio.TaskGroup() as sending:
        waiting = [
            sending.create_task(service.http.post("/api/documents", content=slowly(), headers=JSON))
            for _ in range(MAX_BODIES)
        ]
        await eventually(lambda: len(sent) == MAX_BODIES)
        refused = await service.http.post("/api/documents", content=DOCUMENT, headers=JSON)
        deleted = await service.http.delete("/api/documents", params={"url": "https://example.com/a"})
        let_go.set()
    assert refused.status_code == 503
    assert "send fewer at once" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) > 0
    afterwards = await service.http.post("/api/documents", content=DOCUMENT, headers=JSON)
    for answer in (deleted, afterwards, *(each.result() for each in waiting)):
        assert "not ready" in answer.json()["detail"], "none of them was refused"


async def test_what_is_missing_is_named(serve: Serve) -> None:
    service = await serve()
    document = {"url": "", "markdown": "A text.", "crawl_id": ""}
    refused = await service.http.post("/api/documents", json=document)
    words = {issue["loc"][-1]: issue["msg"] for issue in refused.json()["detail"]}
    assert words == dict.fromkeys(("url", "crawl_id"), "must not be empty")
