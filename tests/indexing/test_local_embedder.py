"""The real model: reproducible and meaningful vectors, without blocking the event loop."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import crawlscope_minilm
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import Settings
from crawlscope.indexing.embedders import local, open_embedder
from crawlscope.indexing.embedders.common import encodable
from crawlscope.indexing.embedders.local import Floats, LocalEmbedder, MiniLm, split_names
from crawlscope.indexing.embedders.port import EmbedderIdentity

TEXTS = [
    "The queue delivers every job at least once.",
    "Bread is baked from flour, water and salt.",
    "```python\nawait queue.put(job)\n```",
    "ok",
]


@pytest.fixture
async def embedder() -> AsyncIterator[LocalEmbedder]:
    opened = LocalEmbedder(threads=2)
    yield opened
    await opened.aclose()


async def test_vectors_have_length_one(embedder: LocalEmbedder) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.dtype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (await embedder.embed([])).shape == (0, 384)


def test_the_runtime_keeps_and_sends_nothing_about_its_use(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "CI"))}
    subprocess.run(
        [sys.executable, "-c", "import crawlscope.indexing.embedders.local"],
        env={**inherited, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        check=True,
    )
    assert [*tmp_path.iterdir()] == []


async def test_a_vector_depends_on_nothing_but_its_text(embedder: LocalEmbedder) -> None:
    together = await embedder.embed(TEXTS * 5)
    for number, text in enumerate(TEXTS):
        (alone,) = await embedder.embed([text])
        assert np.array_equal(together[number], alone)
        assert np.array_equal(together[number + 4], alone)


async def test_texts_with_the_same_meaning_are_close(embedder: LocalEmbedder) -> None:
    query, near, far = await embedder.embed(
        ["how often is a job delivered?", "Jobs are delivered one or more times.", TEXTS[1]]
    )
    assert query @ near > 0.5 > 0.2 > query @ far


MODEL = MiniLm()


@given(st.text(max_size=40))
@example("mergeScheduler of [SEP] x[MASK]y telefon\u0301o \u4f60\u597d a\u2028b \ufb01ne \u0130 \xdf")
@example("a\x1cb a\x0bb a\x0cb a\x85b a\xa0b")
@example("x" * 120 + " " + "y" * 99)
def test_the_tokens_of_words_are_those_of_the_text(text: str) -> None:
    text = encodable(text)
    assert MODEL.ids(text) == MODEL.tokenizer.encode(split_names(text, MODEL._names)).ids


class PlainMean(MiniLm):
    def weights(self, ids: Sequence[int]) -> Floats:
        return np.ones(len(ids), np.float32)


async def test_frequent_tokens_say_little_about_a_text(embedder: LocalEmbedder) -> None:
    texts = ["expired certificate", "self.certificate = (self.expired, (), [], {}, self.the, self.of)"]
    words, code = await embedder.embed(texts)
    plain = LocalEmbedder(open_model=PlainMean)
    plain_words, plain_code = await plain.embed(texts)
    await plain.aclose()
    assert words @ code > plain_words @ plain_code + 0.05


def test_a_long_word_costs_no_more_than_its_letters() -> None:
    assert split_names("0a1b" * 100_000, ()) == "0a1b" * 100_000  # hours, if each letter were a start


async def test_a_name_means_its_words(embedder: LocalEmbedder) -> None:
    joined, apart = await embedder.embed(
        ["How does the MergeScheduler work?", "how does the merge scheduler work?"]
    )
    assert np.array_equal(joined, apart)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("`mergeScheduler.parseHTMLPage()`", "`merge Scheduler.parse HTML Page()`"),
        ("JavaScript on GitHub", "JavaScript on GitHub"),
        ("URLs, VMs and snake_case of EC2", "URLs, VMs and snake_case of EC2"),
        ("PostgreSQL, DynamoDB", "Postgre SQL, Dynamo DB"),
        ("Straße ÜberGröße 東京", "Straße Über Größe 東京"),
    ],
)
def test_names_are_split_unless_the_model_knows_them(text: str, words: str) -> None:
    assert split_names(text, {"javascript", "github"}) == words


async def test_the_model_sees_the_beginning_of_a_long_text(embedder: LocalEmbedder) -> None:
    fitting = "word " * embedder.max_tokens
    exact, longer, another = await embedder.embed([fitting, fitting + "and more " * 500, "cut " + fitting])
    assert np.array_equal(exact, longer)
    assert not np.array_equal(exact, another)


async def test_the_tokenizer_counts_whole_texts(embedder: LocalEmbedder) -> None:
    assert len(embedder.tokenizer.encode("word " * 1000, add_special_tokens=False).ids) == 1000
    assert len(embedder.tokenizer.encode("word").ids) == 3
    assert embedder.max_tokens == 254


async def test_odd_texts_are_embedded(embedder: LocalEmbedder) -> None:
    vectors = await embedder.embed(["", "\ud800", "\x00", "🎉" * 300, "[SEP] [MASK]"])
    assert np.isfinite(vectors).all()


async def test_a_small_page_is_done_before_a_giant_one_that_came_first(embedder: LocalEmbedder) -> None:
    giant = asyncio.ensure_future(embedder.embed([f"{number}: {TEXTS[0]}" for number in range(400)]))
    await asyncio.sleep(0)
    small = await embedder.embed(TEXTS)
    assert not giant.done()
    assert np.array_equal(small, await embedder.embed(TEXTS))
    assert (await giant).shape == (400, 384)


async def test_the_event_loop_is_not_blocked(embedder: LocalEmbedder) -> None:
    embedding = asyncio.ensure_future(embedder.embed(["a long text of many words " * 40] * 8))
    turns = 0
    while not embedding.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 8


async def test_the_identity_names_these_weights() -> None:
    embedder = await open_embedder(Settings(_env_file=None))
    await embedder.aclose()
    digest = hashlib.sha256(crawlscope_minilm.MODEL_PATH.read_bytes()).hexdigest()
    assert digest == crawlscope_minilm.MODEL_SHA256
    assert embedder.identity == EmbedderIdentity(
        "local", "sentence-transformers/all-MiniLM-L6-v2", digest[:12], 384
    )


@pytest.mark.parametrize("file", ["MODEL_PATH", "TOKEN_WEIGHTS_PATH"])
@pytest.mark.parametrize("content", [None, b"", b"cut off"])
def test_a_damaged_model_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes | None
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(local, file, path)
    with pytest.raises(SettingsError, match="reinstall the package crawlscope-minilm"):
        LocalEmbedder()
