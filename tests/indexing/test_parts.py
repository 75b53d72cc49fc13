"""Parts of a text are found that the vector of the whole text hides."""

from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.settings import Settings
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.embedders import local
from crawlscope.indexing.embedders.local import LocalEmbedder
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.parts import PART_TOKENS, pack_parts, sums_of_parts, surpluses
from crawlscope.indexing.prepare import DocumentPreparer, Lanes
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest
from crawlscope.indexing.sparse import Bm25Encoder

DIMENSION = 384
BREAD = "Bread is baked from flour, water and salt in a hot oven. "


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def packed(tokens: np.ndarray, whole: np.ndarray) -> str:
    [text] = pack_parts([sums_of_parts(tokens)], whole[None])
    return text


@given(st.integers(1, 4 * PART_TOKENS), st.integers(0, 99))
def test_a_packed_part_is_as_near_to_a_query_as_the_part(count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    tokens = drawn.normal(size=(count, DIMENSION)).astype(np.float32)
    whole, query = unit(tokens.sum(axis=0)), unit(drawn.normal(size=DIMENSION))
    parts = [unit(tokens[at : at + PART_TOKENS].sum(axis=0)) for at in range(0, count, PART_TOKENS)]
    nearest = max(query @ part - query @ whole for part in parts)
    one, other = surpluses(query, dict.fromkeys("ab", packed(tokens, whole))).values()
    assert one == pytest.approx(other, abs=1e-5)
    assert abs(one - nearest) < 0.08


def test_the_parts_of_each_text_are_its_own() -> None:
    tokens = np.random.default_rng(7).normal(size=(3 * PART_TOKENS, DIMENSION)).astype(np.float32)
    whole = unit(tokens.sum(axis=0))
    sums = [sums_of_parts(tokens[: size * PART_TOKENS]) for size in (1, 3, 2)]
    texts = pack_parts(sums, np.stack([whole] * 3))
    query = unit(tokens[-PART_TOKENS:].sum(axis=0))
    together = surpluses(query, dict(enumerate(texts)))
    for number, each in enumerate(texts):
        assert surpluses(query, {number: each})[number] == pytest.approx(together[number], abs=1e-5)
    assert max(together, key=together.__getitem__) == 1


def test_a_text_whose_packed_parts_cannot_be_read_has_no_surplus() -> None:
    tokens = np.random.default_rng(7).normal(size=(PART_TOKENS, DIMENSION)).astype(np.float32)
    whole = unit(tokens.sum(axis=0))
    one = packed(tokens, whole)
    no_number = b64encode(b"\x00\x7e" + b64decode(one)[2:]).decode()
    texts = {
        "whole": one,
        "none": "",
        "no number": no_number,
        "cut": one[:-4],
        "no base64": one[:-1],
        "other": "é" + one,
    }
    assert surpluses(whole, texts) == pytest.approx(surpluses(whole, {"whole": one}))
    assert surpluses(whole, {"none": ""}) == {}


async def test_a_sentence_among_others_is_near_its_question() -> None:
    embedder = LocalEmbedder()
    hidden = BREAD * 5 + "The queue delivers every job at least once. " + BREAD * 5
    vectors, parts = await embedder.embed_in_parts([hidden, BREAD * 10])
    [query] = await embedder.embed(["how often is a job delivered?"])
    await embedder.aclose()
    with_answer, without = surpluses(query, dict(enumerate(parts))).values()
    assert with_answer > without + 0.1
    np.testing.assert_allclose(vectors[1:], await embedded(BREAD * 10), atol=1e-6)


async def test_texts_are_packed_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, texts = LocalEmbedder(), ["one", BREAD * 10, "three"]
    vectors, parts = await embedder.embed_in_parts(texts)
    monkeypatch.setattr(local, "TEXTS_AT_ONCE", 2)
    again, same_parts = await embedder.embed_in_parts(texts)
    assert np.array_equal(vectors, again)
    assert parts == same_parts
    none, no_parts = await embedder.embed_in_parts([])
    assert (none.shape, no_parts) == ((0, DIMENSION), [])
    await embedder.aclose()


async def embedded(text: str) -> np.ndarray:
    embedder = LocalEmbedder()
    vectors = await embedder.embed([text])
    await embedder.aclose()
    return vectors


async def test_a_new_title_keeps_the_parts_of_the_other_chunks(tmp_path: Path) -> None:
    embedder, index = LocalEmbedder(), EdgeIndex.open(tmp_path / "index", DIMENSION)
    recipe = replace(Recipe.of(embedder, Settings()), chunk_tokens=2 * PART_TOKENS)

    async def open_index() -> EdgeIndex:
        return index

    preparer = DocumentPreparer(1, recipe, embedder, Bm25Encoder(), Lanes(), open_index=open_index)
    url, known = "https://h/", None
    parts = []
    for title in ("Baking", "Cooking"):
        request = IndexDocumentRequest(
            url=url, markdown=BREAD * 15, metadata=DocumentMetadata(url=url, title=title)
        )
        prepared = await preparer.prepare(request, known)
        await index.replace([prepared.document])
        known = KnownDocument(prepared.content_hash, prepared.fingerprint, len(prepared.document.texts), None)
        parts.append(prepared.document.parts)
    first, second = parts
    assert len(first) > 2
    assert first[0] != second[0]
    assert first[1:] == second[1:]
    await index.aclose()
    await embedder.aclose()
