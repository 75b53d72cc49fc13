from crawlscope.cli.output.results import marked
from crawlscope.search.schemas import Highlight, MatchedWord


def test_the_words_of_the_query_are_marked() -> None:
    text = "A lock is released; locking again waits."
    shown = marked(
        Highlight(
            text=text, chunk_index=0, matches=[MatchedWord(start=2, end=6), MatchedWord(start=20, end=27)]
        )
    )
    assert shown.plain == text
    assert [text[span.start : span.end] for span in shown.spans] == ["lock", "locking"]


def test_a_text_cannot_control_the_terminal() -> None:
    shown = marked(Highlight(text="A \x1b[31mlock", chunk_index=0, matches=[MatchedWord(start=2, end=6)]))
    assert shown.plain == "A [31mlock"
    assert shown.spans == []
