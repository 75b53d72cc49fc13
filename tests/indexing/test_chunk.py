"""Chunks hold the whole page in order, and no chunk is longer than the model's input."""

import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from crawlscope.indexing.chunk import PartCounter, WordCounter, split, token_counter
from crawlscope.indexing.embedders.common import load_minilm_tokenizer

TOKENIZER = load_minilm_tokenizer()


def count(text: str, tokenizer: Tokenizer = TOKENIZER) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def assert_whole(text: str, max_tokens: int) -> None:
    chunks = split(text, TOKENIZER, max_tokens)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.text.strip() for chunk in chunks)
    assert max((count(chunk.text) for chunk in chunks), default=0) <= max_tokens
    own = [text[chunk.start : chunk.end] for chunk in chunks]
    assert "".join("".join(each.split()) for each in own) == "".join(text.split())
    for chunk, each in zip(chunks, own, strict=True):
        before, _, after = chunk.text.partition(each)
        assert_repeats(before + after, text)


def assert_repeats(lines: str, text: str) -> None:
    """Other lines in a chunk than its own part are repeated lines of the page."""
    known = {bare(line) for line in text.splitlines()}
    assert {bare(line) for line in lines.splitlines()} <= known | {"", "```", "~~~"}


def bare(line: str) -> str:
    return re.sub(r"^[ >]*(\d+[.)] |[*+-] )?", "", line).strip()


SENTENCE = "Every page of the crawl is cut along its headings and paragraphs. "
CODE = "```python\n" + "\n".join(f"value_{line} = compute({line})\n" for line in range(8)) + "```\n\n"
BLOCKS = st.sampled_from(
    [
        *("# A heading\n\n", "## Another\n", SENTENCE, SENTENCE * 12 + "\n\n", CODE, "\n\n"),
        *("*   an item\n    *   nested\n", "| a | b |\n| --- | --- |\n| 1 | 2 |\n", "> quoted\n\n"),
        *("```\nnever closed\n\n", "漢字だけの文章です。", "🎉", "x" * 90 + " ", "snake_case_name "),
        *("\\\n", "---\n", "<b>", "[1]", " ", "\u00a0"),
    ]
)


CLEANED = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=40)


@example([SENTENCE, CODE, "<b>", "0" * 12, "```\nnever closed\n\n"], 16)
@example([SENTENCE, CODE, "0" * 12, "| a | b |\n| --- | --- |\n| 1 | 2 |\n"], 16)
@settings(max_examples=60, deadline=None)
@given(st.lists(BLOCKS | CLEANED, max_size=40), st.sampled_from([16, 50, 200]))
def test_no_text_is_lost_and_no_chunk_is_too_long(blocks: list[str], max_tokens: int) -> None:
    assert_whole("".join(blocks), max_tokens)


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE * 3000,
        "word " * 40_000,
        "x" * 200_000,
        "漢" * 15_000,
        "".join(random.Random(7).choices("abcdefABCDEF0123+/", k=50_000)),
        CODE * 200,
        "```\n" + "line of code\n\n" * 3000,
        "# a\n" * 5000,
        "\n\n".join([SENTENCE * 4] * 300),
    ],
    ids=["one line", "words", "one word", "kanji", "base64", "code", "open fence", "headings", "paragraphs"],
)
def test_long_pages_are_split_completely(text: str) -> None:
    assert_whole(text, 200)


def test_no_text_has_no_chunks() -> None:
    assert split("", TOKENIZER, 200) == []
    assert split(" \n\n ", TOKENIZER, 200) == []


def test_a_short_page_is_one_chunk() -> None:
    text = "# Title\n\nA paragraph.\n\n*   an item"
    assert [chunk.text for chunk in split(text, TOKENIZER, 200)] == [text]


def test_sections_begin_with_their_heading() -> None:
    text = "\n\n".join(f"## Section {number}\n\n{SENTENCE * 10}" for number in range(20))
    chunks = split(text, TOKENIZER, 200)
    assert len(chunks) == 20
    assert all(chunk.text.startswith(f"## Section {chunk.index}\n") for chunk in chunks)


def test_a_tiny_end_joins_the_chunk_before_it() -> None:
    text = f"{SENTENCE * 10}\n\n# Imprint"
    (chunk,) = split(text, TOKENIZER, 200)
    assert chunk.text == text


def test_code_stays_together_if_a_long_page_is_cut() -> None:
    chunks = split(f"{SENTENCE * 5}\n\n{CODE}" * 60, TOKENIZER, 400)
    assert all(chunk.text.count("```") % 2 == 0 for chunk in chunks)


ROWS = [f"| option-{n} | switches feature number {n} on | since 1.{n} |" for n in range(60)]
TABLE = "\n".join(["| Option | What it does | Since |", "| --- | --- | --- |", *ROWS])


def test_each_piece_of_a_table_has_its_header() -> None:
    chunks = split(f"Before it.\n\n{TABLE}\n\n{SENTENCE}", TOKENIZER, 200)
    tables = [chunk.text for chunk in chunks if "option-" in chunk.text]
    assert len(tables) > 3
    for text in tables:
        lines = text.removeprefix("Before it.\n\n").splitlines()
        assert lines[:2] == ["| Option | What it does | Since |", "| --- | --- | --- |"]
        assert set(lines[2:]) <= set(ROWS)
    assert sum(text.count("switches") for text in tables) == len(ROWS)
    assert chunks[-1].text == SENTENCE.strip()


def test_a_table_that_fits_stays_whole() -> None:
    table = "\n".join(TABLE.splitlines()[:8])
    text = "\n\n".join(f"{SENTENCE * number}\n\n{table}" for number in range(1, 30))
    assert all(chunk.text.count("option-") in (0, 6, 12) for chunk in split(text, TOKENIZER, 200))


def test_a_wide_header_leaves_room_for_the_rows() -> None:
    header = "| " + " | ".join(f"a rather long name of column {n}" for n in range(40)) + " |"
    row = "| " + " | ".join("cell" for _ in range(40)) + " |"
    text = "\n".join([header, re.sub(r"[^|]+", " --- ", header), *[row] * 30])
    assert_whole(text, 200)


def test_the_pieces_of_long_code_are_code() -> None:
    lines = [f"value_{number} = compute({number})" for number in range(100)]
    text = "# Code\n\nLike this:\n\n```python\n" + "\n".join(lines) + "\n```\n\n" + SENTENCE
    chunks = split(text, TOKENIZER, 200)
    pieces = [chunk.text for chunk in chunks if "compute" in chunk.text]
    assert len(pieces) > 3
    assert pieces[0].startswith("# Code\n\nLike this:\n\n```python\nvalue_0 =")
    found: list[str] = []
    for piece in pieces:
        opening, *code, closing = piece.removeprefix("# Code\n\nLike this:\n\n").splitlines()
        assert (opening, closing) == ("```python", "```")
        found += code
    assert found == lines
    assert chunks[-1].text == SENTENCE.strip()


@pytest.mark.parametrize("before", ["> ", "   ", "1. ", "- "])
def test_quoted_and_listed_code_is_code_in_each_piece(before: str) -> None:
    rest = re.sub(r"[^>]", " ", before)
    lines = [f"{rest}value_{number} = compute({number})" for number in range(100)]
    text = "\n".join([f"{before}~~~", *lines, f"{rest}~~~"])
    chunks = split(text, TOKENIZER, 200)
    assert len(chunks) > 3
    assert all(re.match(r"[ >\d.-]*~~~\n", chunk.text) for chunk in chunks)
    assert all(re.search(r"\n[ >]*~~~$", chunk.text) for chunk in chunks)


@settings(max_examples=60, deadline=None)
@given(st.lists(BLOCKS, max_size=40))
def test_code_that_fits_is_never_cut(blocks: list[str]) -> None:
    text = "\n\n".join(block for block in blocks if "never closed" not in block)
    chunks = [chunk.text for chunk in split(text, TOKENIZER, 200)]
    assert sum(chunk.count(CODE.strip()) for chunk in chunks) == text.count(CODE.strip())


def test_words_unknown_to_the_tokenizer_do_not_make_chunks_endless() -> None:
    assert max(len(chunk.text) for chunk in split("x" * 50_000, TOKENIZER, 200)) <= 4000


def test_the_same_text_gives_the_same_chunks_in_any_thread() -> None:
    text = (SENTENCE * 7 + "\n\n" + CODE) * 30
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: split(text, TOKENIZER, 200), range(8)))
    assert all(result == results[0] for result in results)


WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@settings(max_examples=500, deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join))
@example("[MASK] a[SEP]b [CLS], [CLS ] [[UNK]]")
@example("can't f(x_1,[2]) C:\\a\\b ÉTÉ.ΑΣ.Β ﬁ.\u0301x " + "w" * 101 + "-" + "w" * 99)
def test_counting_word_by_word_is_counting(text: str) -> None:
    """Control characters are left out: cleaned text has none."""
    assert WordCounter(TOKENIZER, in_parts=False)(text) == count(text)
    assert WordCounter(TOKENIZER, in_parts=True)(text) == count(text)


@given(st.lists(BLOCKS, max_size=12).map("".join), st.data())
def test_parts_of_a_text_count_as_they_do_alone(text: str, data: st.DataObject) -> None:
    counter = WordCounter(TOKENIZER, in_parts=True)
    parts, places = PartCounter(text, counter), st.integers(0, len(text))
    lines = [0, *(found.end() for found in re.finditer("\n", text)), len(text)]
    for _ in range(4):
        start, end = data.draw(places | st.sampled_from(lines)), data.draw(places | st.sampled_from(lines))
        for part in (text[start:end], text[start:end].rstrip("\n")):
            assert parts(part) == counter(part)


def test_a_tokenizer_whose_words_are_more_than_their_parts_counts_whole_words() -> None:
    tokenizer = Tokenizer(WordLevel({"don't": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    assert token_counter(tokenizer)("don't e-mail (me)") == 3
