import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from crawlscope.core.errors import EmbedderUnavailable, IndexUnavailable
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.port import Halves, IndexedDocument
from crawlscope.indexing.parts import pack_parts, sums_of_parts
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.fusion import DENSE_WEIGHT
from crawlscope.search.results import MAX_PASSAGES
from crawlscope.search.schemas import SearchRequest
from crawlscope.search.service import SearchService

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIMENSION = 64


class InitialsEmbedder:
    """Words with the same initial have the same meaning, so that tests can vary meaning and wording."""

    def __init__(self) -> None:
        self.unavailable = False

    @property
    def identity(self) -> EmbedderIdentity:
        return EmbedderIdentity("test", "initials", "1", DIMENSION)

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(WordLevel({"?": 0}, unk_token="?"))

    @property
    def max_tokens(self) -> int:
        return 256

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self.unavailable:
            raise EmbedderUnavailable("the embedder is unavailable")
        rows = np.full((len(texts), DIMENSION), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[hashlib.sha256(word[:3].encode()).digest()[0] % DIMENSION] += 1
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    async def aclose(self) -> None:
        pass


BM25 = Bm25Encoder()
ANIMALS = "https://zoo.example/animals/"

PAGES: dict[str, tuple[str, list[str], list[str]]] = {
    f"{ANIMALS}cat.html": (
        "en",
        ["c1", "c2"],
        [
            "Cats sleep most of the day.",
            "A cat that sleeps is called sleepy.",
            "Kittens grow quickly.",
            *(f"Cats sleep, part {n}." for n in range(8)),
        ],
    ),
    f"{ANIMALS}dog.html": ("en", ["c1"], ["Dogs chase a cat now and then.", "A dog barks."]),
    "https://zoo.example/plants.html": (
        "en",
        ["c2"],
        ["Plants make sugar from light: photosynthesis.", "Sleep is unknown to them."],
    ),
    "https://other.example/katze": ("de", ["c2"], ["Die Katze schläft den ganzen Tag."]),
    "https://zoo.example/photos": ("en", ["c1"], ["Photographs of the sunset over the lake."]),
}


async def index_pages(index: EdgeIndex, embedder: InitialsEmbedder) -> None:
    for url, (language, crawl_ids, texts) in PAGES.items():
        await index.replace(
            [
                IndexedDocument(
                    url=url,
                    title=url.rsplit("/", 1)[-1],
                    language=language,
                    crawl_ids=crawl_ids,
                    texts=texts,
                    dense=await embedder.embed(texts),
                    sparse=[BM25.encode_document(text) for text in texts],
                )
            ]
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder() -> InitialsEmbedder:
    return InitialsEmbedder()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(
    tmp_path_factory: pytest.TempPathFactory, embedder: InitialsEmbedder
) -> AsyncIterator[SearchService]:
    index = EdgeIndex.open(tmp_path_factory.mktemp("search") / "index", DIMENSION)
    await index_pages(index, embedder)
    yield SearchService(index, embedder, BM25)
    await index.aclose()


def asked(query: str, **more: Any) -> SearchRequest:
    return SearchRequest.model_validate({"query": query, **more})


async def test_the_chunks_of_a_page_are_one_result(service: SearchService) -> None:
    response = await service.search(asked("cats sleep", mode="keyword"))
    best, *others = response.results
    assert best.url == f"{ANIMALS}cat.html"
    assert best.title == "cat.html"
    assert best.text.startswith("Cats sleep")
    assert len(best.passages) == MAX_PASSAGES
    scores = [best.score, *(passage.score for passage in best.passages)]
    assert scores == sorted(scores, reverse=True)
    assert best.chunk_index not in {passage.chunk_index for passage in best.passages}
    assert best.url not in {other.url for other in others}
    assert (response.mode, response.total) == ("keyword", 3)
    assert response.took_ms > 0


async def test_keyword_finds_words_and_semantic_meanings(service: SearchService) -> None:
    async def found(mode: str) -> list[str]:
        response = await service.search(asked("photon", mode=mode, limit=2))
        return [result.url for result in response.results]

    assert await found("keyword") == []
    assert set(await found("semantic")) == {
        "https://zoo.example/plants.html",
        "https://zoo.example/photos",
    }
    assert await found("hybrid") == await found("semantic")


async def test_meaning_alone_scores_less_in_hybrid_mode(service: SearchService) -> None:
    response = await service.search(asked("photon"))
    assert response.results[0].score == pytest.approx(DENSE_WEIGHT)


async def test_a_result_says_how_each_half_found_it(service: SearchService) -> None:
    results = (await service.search(asked("dog barks"))).results
    dog = next(result for result in results if result.title == "dog.html")
    assert dog.keyword
    assert dog.semantic
    assert (dog.keyword.rank, dog.keyword.chunk_index, dog.keyword.text) == (1, 1, "A dog barks.")
    assert 0 < dog.semantic.score <= 1 < dog.keyword.score
    cat = next(result for result in results if result.title == "cat.html")
    assert (cat.keyword, cat.semantic and cat.semantic.rank > 1) == (None, True)


async def test_the_next_results_of_a_query_do_not_need_the_embedder(
    service: SearchService, embedder: InitialsEmbedder
) -> None:
    found = await service.search(SearchRequest(query="a garden of vegetables", mode="semantic", limit=1))
    embedder.unavailable = True
    try:
        further = SearchRequest(query="a garden of vegetables", mode="semantic", limit=1, offset=1)
        assert (await service.search(further)).total == found.total
        with pytest.raises(EmbedderUnavailable):
            await service.search(SearchRequest(query="a garden of flowers", mode="semantic"))
    finally:
        embedder.unavailable = False


@pytest.mark.parametrize("mode", ["keyword", "hybrid"])
async def test_a_page_is_first_for_its_own_title(
    tmp_path: Path, embedder: InitialsEmbedder, mode: str
) -> None:
    pages = {
        "Rotating keys | Docs": ["Press the button twice."],
        "Other": ["Rotating keys, rotating keys: all about rotating keys."],
        "Overview of rotating keys": ["Rotating keys is easy."],
    }
    index = EdgeIndex.open(tmp_path / "index", DIMENSION)
    for title, texts in pages.items():
        passages = [f"{title}\n\n{text}" for text in texts]
        sparse = [BM25.encode_document(passage) for passage in passages]
        dense = await embedder.embed(passages)
        await index.replace(
            [IndexedDocument(f"https://h/{title}", title, texts=texts, dense=dense, sparse=sparse)]
        )
    results = (await SearchService(index, embedder, BM25).search(asked("rotating keys", mode=mode))).results
    assert results[0].title == "Rotating keys | Docs"
    assert results[0].score == max(result.score for result in results)
    await index.aclose()


@pytest.mark.parametrize("mode", ["semantic", "hybrid"])
async def test_a_page_with_a_sentence_that_answers_is_first(
    tmp_path: Path, embedder: InitialsEmbedder, mode: str
) -> None:
    index = EdgeIndex.open(tmp_path / "index", DIMENSION)
    [query, other] = await embedder.embed(["apple pears", "quince"])
    even, parted = [0.52 * query + 0.48 * other] * 64, [query] * 32 + [other] * 32
    for name, tokens in (("even", np.array(even)), ("parted", np.array(parted))):
        whole = tokens.sum(axis=0) / np.linalg.norm(tokens.sum(axis=0))
        texts, parts = ["Nothing of it."], pack_parts([sums_of_parts(tokens)], whole[None])
        sparse = [BM25.encode_document(texts[0])]
        await index.replace(
            [IndexedDocument(f"https://h/{name}", name, "", [], texts, whole[None], sparse, parts)]
        )
    results = (await SearchService(index, embedder, BM25).search(asked("apple pears", mode=mode))).results
    assert [result.title for result in results] == ["parted", "even"]
    await index.aclose()


async def test_hybrid_ranks_hits_of_both_halves_first(service: SearchService) -> None:
    response = await service.search(asked("photosynthesis"))
    assert response.results[0].url == "https://zoo.example/plants.html"
    assert all(0 <= result.score <= 1 for result in response.results)
    assert response.total == len(PAGES)


async def test_keyword_search_needs_no_embedder(service: SearchService, embedder: InitialsEmbedder) -> None:
    embedder.unavailable = True
    try:
        assert (await service.search(asked("cat", mode="keyword"))).total == 2
        for mode in ("semantic", "hybrid"):
            with pytest.raises(EmbedderUnavailable):
                await service.search(asked("cat", mode=mode))
    finally:
        embedder.unavailable = False


@pytest.mark.parametrize("mode", ["keyword", "semantic", "hybrid"])
async def test_pages_of_results_fit_together(service: SearchService, mode: str) -> None:
    whole = await service.search(asked("cats sleep", mode=mode, limit=100))
    single = [
        (await service.search(asked("cats sleep", mode=mode, limit=1, offset=n))).results
        for n in range(whole.total)
    ]
    assert [result for (result,) in single] == whole.results
    assert (await service.search(asked("cats sleep", mode=mode, offset=whole.total))).results == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"domain": "other.example"}, {"katze"}),
        ({"crawl_id": "c1"}, {"cat.html", "dog.html", "photos"}),
        ({"language": "de"}, {"katze"}),
        ({"url_prefix": ANIMALS}, {"cat.html", "dog.html"}),
        ({"url_prefix": "https://zoo.example/p"}, {"plants.html", "photos"}),
        ({"domain": "zoo.example", "crawl_id": "c2"}, {"cat.html", "plants.html"}),
        ({"domain": "nowhere.example"}, set()),
    ],
)
async def test_filters_apply_to_both_halves(
    service: SearchService, filters: dict[str, str], expected: set[str]
) -> None:
    response = await service.search(asked("cats sleep", filters=filters))
    assert {result.title for result in response.results} == expected
    assert response.total == len(expected)


async def test_crawl_id_is_the_filtered_or_the_latest_crawl(service: SearchService) -> None:
    latest = (await service.search(asked("kittens", mode="keyword"))).results[0]
    assert (latest.crawl_id, latest.crawl_ids) == ("c2", ["c1", "c2"])
    filtered = (await service.search(asked("kittens", filters={"crawl_id": "c1"}))).results[0]
    assert filtered.crawl_id == "c1"


async def test_one_page_with_many_chunks_does_not_crowd_out_others(tmp_path: Path) -> None:
    embedder = InitialsEmbedder()
    index = EdgeIndex.open(tmp_path / "index", DIMENSION)
    bulky = {"https://h/bulky": ["apple"] * 450}
    single = {f"https://h/single{n}": ["apple and some other words"] for n in range(12)}
    await index.replace(
        [
            IndexedDocument(
                url,
                texts=texts,
                dense=await embedder.embed(texts),
                sparse=[BM25.encode_document(text) for text in texts],
            )
            for url, texts in {**bulky, **single}.items()
        ]
    )
    service = SearchService(index, embedder, BM25)
    for mode in ("keyword", "semantic", "hybrid"):
        response = await service.search(asked("apple", mode=mode))
        assert len(response.results) == 10
        assert response.results[0].url == "https://h/bulky"
        assert response.results[0].crawl_id is None
    await index.aclose()
    with pytest.raises(IndexUnavailable):
        await service.search(asked("apple", mode="keyword"))


async def test_a_quoted_sentence_ranks_before_texts_that_repeat_its_words(service: SearchService) -> None:
    response = await service.search(asked("Dogs chase a cat now and then", mode="keyword"))
    assert response.results[0].url == f"{ANIMALS}dog.html"
    response = await service.search(asked("a cat that sleeps is called sleepy"))
    assert response.results[0].text == "A cat that sleeps is called sleepy."
    assert response.results[0].score == max(result.score for result in response.results)


async def test_a_name_with_a_number_ranks_before_similar_names(tmp_path: Path) -> None:
    embedder, index = InitialsEmbedder(), EdgeIndex.open(tmp_path / "index", DIMENSION)
    texts = {
        "https://h/names": "405 40506, PEP 8, PEP 290",
        "https://h/venv": "The proposal, PEP-405, has more background on environments than others",
    }
    for url, text in texts.items():
        vectors = await embedder.embed([text])
        await index.replace(
            [IndexedDocument(url, "", "en", [], [text], vectors, [BM25.encode_document(text)])]
        )
    response = await SearchService(index, embedder, BM25).search(asked("PEP 405"))
    await index.aclose()
    assert [result.url for result in response.results] == ["https://h/venv", "https://h/names"]


@pytest.mark.parametrize("mode", ["keyword", "semantic", "hybrid"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"chase a cat"', {"dog.html"}),
        ('sleep "the sunset" over', {"photos"}),
        ('"photosynthesis" "Sleep is unknown"', {"plants.html"}),
        ('"a cat" -barks', {"cat.html"}),
        ('"a cat" -"sleeps is called"', {"dog.html"}),
        ('"chase a cat" "the sunset"', {"dog.html"}),
        ('"cat.html"', {"cat.html"}),
    ],
)
async def test_phrases_are_required_and_words_excluded(
    service: SearchService, query: str, expected: set[str], mode: str
) -> None:
    response = await service.search(asked(query, mode=mode))
    assert {result.title for result in response.results} == expected


async def test_the_answer_says_how_the_query_was_read(service: SearchService) -> None:
    response = await service.search(asked('lake "the sunset" -dogs', filters={"domain": "zoo.example"}))
    assert (response.phrases, response.excluded) == (["the sunset"], ["dogs"])
    assert response.total == 1


@pytest.mark.parametrize("phrase", ["cat a chase", "the of"])
async def test_a_phrase_that_no_page_has_is_not_required(service: SearchService, phrase: str) -> None:
    response = await service.search(asked(f'cats "{phrase}"'))
    assert (response.total, response.phrases) == (len(PAGES), [])


async def test_a_query_of_stop_words_finds_nothing_by_keyword(service: SearchService) -> None:
    response = await service.search(asked("the of and", mode="keyword"))
    assert (response.results, response.total) == ([], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": ""},
        {"query": " \n\t "},
        {"query": "x" * 4097},
        {"query": None},
        {"query": "\ud800"},
        {"query": "x", "mode": "magic"},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": 101},
        {"query": "x", "offset": -1},
        {"query": "x", "offset": 1001},
        {"query": "x", "surprise": 1},
        {"query": "x", "filters": {"surprise": 1}},
        {"query": "x", "filters": {"domain": ""}},
    ],
)
async def test_invalid_requests_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate(wrong)


async def test_a_query_is_stripped() -> None:
    assert asked("  cat \n").query == "cat"
    assert asked("x" * 4096).query == "x" * 4096


class Vanishing(EdgeIndex):
    """Loses a document between a query and the request of its payloads."""

    async def query(self, *arguments: Any) -> Halves:
        halves = await super().query(*arguments)
        await self.replace([IndexedDocument("https://h/vanishing")])
        return halves


async def test_a_document_that_is_removed_during_a_search_is_left_out(tmp_path: Path) -> None:
    index = Vanishing.open(tmp_path / "index", DIMENSION)
    embedder = InitialsEmbedder()
    for url in ("https://h/vanishing", "https://h/staying"):
        texts = ["apple and a pear or more"]
        dense, sparse = await embedder.embed(texts), [BM25.encode_document(texts[0])]
        await index.replace([IndexedDocument(url, texts=texts, dense=dense, sparse=sparse)])
    response = await SearchService(index, embedder, BM25).search(asked("apple and a pear or more"))
    assert [result.url for result in response.results] == ["https://h/staying"]
    await index.aclose()
