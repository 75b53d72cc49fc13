import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crawlscope.core.errors import RerankerUnavailable, SettingsError
from crawlscope.core.settings import Settings
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.port import IndexedDocument
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.reranker import MAX_FAILURES, Reranker, RerankingServer
from crawlscope.search.schemas import SearchRequest
from crawlscope.search.service import SearchService
from tests.search.test_service import DIMENSION, InitialsEmbedder
from tests.support.fakes.firecrawl_http import Reply, Request, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

BM25 = Bm25Encoder()
KEY = "a-secret-key"


class FakeReranker:
    """A longer text has a higher score. Answers as both kinds of server, unless `reply` is set, and not
    before it is `released`.
    """

    def __init__(self) -> None:
        self.server = Server(0, self.answer)
        self.released = threading.Event()
        self.released.set()
        self.reply: Reply | None = None
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def answer(self, request: Request, _host: str) -> Reply:
        self.requests.append(request)
        self.released.wait(10)
        asked = json.loads(request.content)
        texts = asked.get("texts") or asked["documents"]
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        if self.reply:
            return self.reply
        if "model" in asked:
            return Reply(200, {"results": [{"index": n, "relevance_score": len(texts[n])} for n in order]})
        return Reply(200, [{"index": n, "score": len(texts[n])} for n in order])


@pytest.fixture
def fake() -> Iterator[FakeReranker]:
    reranker = FakeReranker()
    yield reranker
    reranker.released.set()
    reranker.server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EdgeIndex]:
    index, embedder = (
        EdgeIndex.open(tmp_path_factory.mktemp("reranked") / "index", DIMENSION),
        InitialsEmbedder(),
    )
    for number in range(60):
        texts = [f"apple {'pear ' * number}"]
        sparse = [BM25.encode_document(text) for text in texts]
        dense = await embedder.embed(texts)
        await index.replace(
            [IndexedDocument(f"https://h/{number}", "", texts=texts, dense=dense, sparse=sparse)]
        )
    yield index
    await index.aclose()


async def search(index: EdgeIndex, reranker: Reranker, **more: Any) -> list[tuple[str, float | None]]:
    service = SearchService(index, InitialsEmbedder(), BM25, reranker=reranker)
    response = await service.search(SearchRequest.model_validate({"query": "apple", "limit": 100, **more}))
    return [(result.url, result.rerank_score) for result in response.results]


@pytest.mark.parametrize("model", [None, "rerank-v3.5"])
async def test_a_server_scores_each_text(fake: FakeReranker, model: str | None) -> None:
    async with RerankingServer(f"{fake.url}/rerank", model, KEY) as server:
        texts = ["x" * (number * 7 % 50) for number in range(1, 50)]
        assert await server.scores("apple", texts) == [len(text) for text in texts]
    assert {request.path for request in fake.requests} == {"/rerank"}
    assert {request.headers["authorization"] for request in fake.requests} == {f"Bearer {KEY}"}
    assert len(fake.requests) == (1 if model else 2)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(401, {"message": f"wrong key {KEY}"}), "401 Unauthorized: wrong key …"),
        (Reply(500, {"error": "out of memory"}), "500 Internal Server Error: out of memory"),
        (Reply(200, {"results": "none"}), "without scores"),
        (Reply(200, [{"index": 0, "score": 1.0}]), "1 scores for 2 texts"),
        (Reply(200, [{"index": 0, "score": 1.0}, {"index": 7, "score": 1.0}]), "2 scores for 2 texts"),
    ],
)
async def test_a_wrong_answer_is_an_error_of_one_line(fake: FakeReranker, reply: Reply, says: str) -> None:
    fake.reply = reply
    async with RerankingServer(fake.url, api_key=KEY) as server:
        with pytest.raises(RerankerUnavailable, match=says) as raised:
            await server.scores("apple", ["one", "two"])
    assert KEY not in str(raised.value)


async def test_the_first_pages_are_ordered_by_the_reranker(fake: FakeReranker, index: EdgeIndex) -> None:
    reranker = Reranker(RerankingServer(fake.url))
    whole = await search(index, reranker)
    scores = [score for _, score in whole[:50] if score is not None]
    assert len(whole) == 60
    assert len(scores) == 50
    assert scores == sorted(scores, reverse=True)
    assert {score for _, score in whole[50:]} == {None}
    assert await search(index, reranker, offset=3, limit=4) == whole[3:7]
    asked = len(fake.requests)
    assert await search(index, reranker, offset=55, limit=2) == whole[55:57]
    assert {score for _, score in await search(index, reranker, mode="keyword")} == {None}
    assert len(fake.requests) == asked
    await reranker.aclose()


async def test_without_an_answer_the_order_stands_and_the_server_gets_a_pause(
    fake: FakeReranker, index: EdgeIndex
) -> None:
    reranker = Reranker(RerankingServer(fake.url))
    fake.reply = Reply(400, {"error": "no"})
    usual = [(url, None) for url, _ in await search(index, reranker)]
    for _ in range(MAX_FAILURES):
        assert await search(index, reranker) == usual
    asked = len(fake.requests)
    fake.reply = None
    assert await search(index, reranker) == usual
    assert len(fake.requests) == asked
    await reranker.aclose()


async def test_a_server_that_is_too_slow_is_not_waited_for(fake: FakeReranker, index: EdgeIndex) -> None:
    fake.released.clear()
    reranker = Reranker(RerankingServer(fake.url, patience_seconds=0.2))
    assert {score for _, score in await search(index, reranker)} == {None}
    await reranker.aclose()


async def test_settings_make_a_reranker(tmp_path: Path) -> None:
    assert Reranker.of(Settings(data_dir=tmp_path)) is None
    with pytest.raises(SettingsError, match="RERANKER_API_KEY"):
        Reranker.of(Settings(data_dir=tmp_path, reranker_url="http://h", reranker_api_key="ü"))
