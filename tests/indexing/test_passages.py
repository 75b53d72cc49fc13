from crawlscope.indexing.chunk import Chunk
from crawlscope.indexing.embedders.texts import load_minilm_tokenizer
from crawlscope.indexing.passages import passages
from crawlscope.indexing.recipe import TITLE_TOKENS

tokenizer = load_minilm_tokenizer()


def test_the_title_goes_before_each_chunk() -> None:
    chunks = [Chunk(0, "Press the button.", 0, 17), Chunk(1, "Twice.", 19, 25)]
    assert passages("Badge readers", chunks, tokenizer) == [
        "Badge readers\n\nPress the button.",
        "Badge readers\n\nTwice.",
    ]
    assert passages("", chunks, tokenizer) == ["Press the button.", "Twice."]


def test_a_long_title_leaves_the_chunk_its_room() -> None:
    title = "unbelievably long titles " * 10_000
    (passage,) = passages(title, [Chunk(0, "Text.", 0, 5)], tokenizer)
    heading, _, text = passage.partition("\n\n")
    assert text == "Text."
    assert title.startswith(heading)
    assert len(tokenizer.encode(heading, add_special_tokens=False).ids) == TITLE_TOKENS
