import time

import numpy as np
import pytest

from crawlscope.indexing.chunk import Chunk, split
from crawlscope.indexing.embedders.common import load_minilm_tokenizer
from crawlscope.indexing.generations.recipe import CONTEXT_TOKENS
from crawlscope.indexing.passages import passages
from crawlscope.indexing.prepare import within_page

tokenizer = load_minilm_tokenizer()
SENTENCE = "Every page of the crawl is cut along its headings and paragraphs. "


def contexts(title: str, text: str) -> list[str]:
    """The text before each chunk."""
    chunks = split(text, tokenizer, 200)
    made = passages(title, text, chunks, tokenizer)
    return [passage.removesuffix(chunk.text).strip() for passage, chunk in zip(made, chunks, strict=True)]


def test_the_title_goes_before_each_chunk() -> None:
    text = "Press the button.\n\nTwice."
    chunks = [Chunk(0, "Press the button.", 0, 17), Chunk(1, "Twice.", 19, 25)]
    assert passages("Badge readers", text, chunks, tokenizer) == [
        "Badge readers\n\nPress the button.",
        "Badge readers\n\nTwice.",
    ]
    assert passages("", text, chunks, tokenizer) == ["Press the button.", "Twice."]


def test_the_headings_above_a_chunk_go_before_it() -> None:
    long = SENTENCE * 20
    text = f"# Guide\n\n{long}\n\n## Install\n\n{long}\n\n### Linux ##\n\n{long}\n\n## Use\n\n{long}"
    assert dict.fromkeys(contexts("Guide", text)) == dict.fromkeys(
        ["Guide", "Guide > Install", "Guide > Install > Linux", "Guide > Use"]
    )
    chunks = split(text, tokenizer, 200)
    begins = {
        chunk.text.splitlines()[0]: context
        for chunk, context in zip(chunks, contexts("Guide", text), strict=True)
    }
    assert begins["# Guide"] == begins["## Install"] == begins["## Use"] == "Guide"
    assert begins["### Linux ##"] == "Guide > Install"


def test_a_comment_in_code_is_no_heading() -> None:
    code = "```sh\n# not a heading\nmake\n```"
    assert contexts("Guide", f"{code}\n\n{SENTENCE * 20}") == ["Guide"] * 3


def test_a_long_title_leaves_the_chunk_its_room() -> None:
    title = "unbelievably long titles " * 10_000
    (passage,) = passages(title, "Text.", [Chunk(0, "Text.", 0, 5)], tokenizer)
    heading, _, text = passage.partition("\n\n")
    assert text == "Text."
    assert title.startswith(heading)
    assert len(tokenizer.encode(heading, add_special_tokens=False).ids) == CONTEXT_TOKENS


@pytest.mark.parametrize("piece", ["# ", " \t", "##### "])
def test_a_heading_without_end_takes_linear_time(piece: str) -> None:
    text = f"# {piece * 20_000}x"
    chunks = split(text, tokenizer, 200)
    began = time.thread_time()
    passages("", text, chunks, tokenizer)
    assert time.thread_time() - began < 2


def test_each_chunk_has_a_share_of_its_page() -> None:
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    first, _, last = within_page(vectors, 0.3)
    assert np.allclose(first, [0.9, 0.1, 0.0])
    assert last[1] > last[0] > last[2] == 0.0


def test_the_only_chunk_of_a_page_stays_as_it_is() -> None:
    vector = np.array([[0.6, 0.8, 0.0]], np.float32)
    assert np.allclose(within_page(vector, 0.3), vector)
