import pytest

from crawlscope.indexing.index.port import ChunkPayload
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.highlights import MAX_CHARACTERS, Highlighter
from crawlscope.search.query_words import QueryWords
from crawlscope.search.schemas import Highlight

encoder = Bm25Encoder()
FILLER = "Nothing of interest stands in this sentence. " * 20


def chunk(text: str, number: int = 0, url: str = "https://h/a") -> ChunkPayload:
    return ChunkPayload(
        url=url,
        title="",
        text=text,
        chunk_index=number,
        domain="h",
        url_prefixes=[],
        language="en",
        crawl_ids=[],
    )


def highlights(query: str, *texts: str) -> list[Highlight]:
    chunks = [chunk(text, number) for number, text in enumerate(texts)]
    return Highlighter(QueryWords(query, encoder.encode_query), chunks).highlights(chunks)


def marked(highlight: Highlight) -> list[str]:
    return [highlight.text[word.start : word.end] for word in highlight.matches]


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("lock", "A lock is released; locking again waits.", ["lock", "locking"]),
        ("user name", "Call getUserName() for the user_name.", ["getUserName", "user", "name"]),
        ("get user", "getUserName(), GET_USER", ["getUserName", "GET", "USER"]),
        ("getUserName", "The name of a user.", ["name", "user"]),
        ("telephone", "Le téléphone sonne.", ["téléphone"]),
        ("téléphone", "The telephone rings.", ["telephone"]),
        ("天气", "今天天气很好。", ["天气"]),
        ("犬", "犬は走る。", ["犬"]),
        ("박물관", "서울 박물관에서 만나요.", ["박물관"]),
        ("the of", "The beginning of the end.", []),
        ("cat", "A location is no animal.", []),
    ],
)
def test_words_are_found_as_the_index_finds_them(query: str, text: str, words: list[str]) -> None:
    (found,) = highlights(query, text)
    assert found.text == text
    assert marked(found) == words


def test_the_sentences_with_most_words_are_shown_without_markup() -> None:
    (found,) = highlights(
        "waiting for locks", f"# Threads\n\n{FILLER}\n\n**Threads** wait for a lock. {FILLER}"
    )
    assert "Threads wait for a lock. Nothing of interest" in found.text
    assert marked(found) == ["wait", "lock"]
    assert len(found.text) <= MAX_CHARACTERS
    assert found.text.endswith("sentence.")


def test_a_sentence_that_is_too_long_is_cut_around_its_first_match() -> None:
    (found,) = highlights("needle", f"{'hay ' * 200}needle {'straw ' * 200}")
    assert len(found.text) <= MAX_CHARACTERS
    assert (found.text[0], found.text[-1]) == ("…", "…")
    assert marked(found) == ["needle"]


def test_without_a_match_the_beginning_is_shown() -> None:
    (found,) = highlights("unrelated", FILLER)
    assert found.text.startswith("Nothing of interest")
    assert found.matches == []


def test_each_chunk_is_highlighted_in_their_order() -> None:
    found = highlights("cat", *(f"Cat number {number}." for number in range(3)))
    assert [each.chunk_index for each in found] == [0, 1, 2]


def test_a_sentence_that_stands_on_many_pages_is_left_out() -> None:
    cookies = "We use cookies to make cookies."
    shown = [chunk(f"{cookies}\n\nCookies of page {n}.", url=f"https://h/{n}") for n in range(3)]
    words = QueryWords("cookies", encoder.encode_query)
    (found,) = Highlighter(words, shown).highlights(shown[:1])
    assert found.text == "Cookies of page 0."
    (alone,) = Highlighter(words, shown[:2]).highlights(shown[:1])
    assert alone.text.startswith(cookies)
    only = [chunk(cookies, url=f"https://h/{n}") for n in range(3)]
    (nothing_else,) = Highlighter(words, only).highlights(only[:1])
    assert nothing_else.text == cookies


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Calls\n\nThe **wrapper**:\n", "The wrapper:"),
        ("Use `**` or ``f(**options)`` with the wrapper.", "Use `**` or ``f(**options)`` with the wrapper."),
        (
            "The wrapper:\n\n```python\n# Calls it\nf(*a, **b)\n```\n\n**End**",
            "The wrapper: # Calls it f(*a, **b) End",
        ),
        ("~~~\nwrapper(**b)", "wrapper(**b)"),
        ("- the wrapper:\n\n  ```\n  wrapper(**b)\n  ```\n", "- the wrapper: wrapper(**b)"),
        ("```\n```\nwrapper", "wrapper"),
        ("wrapper\n\n```", "wrapper"),
    ],
)
def test_code_is_shown_as_it_stands(text: str, shown: str) -> None:
    (found,) = highlights("wrapper", text)
    assert found.text == shown
