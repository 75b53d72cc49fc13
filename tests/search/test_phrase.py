import pytest

from crawlscope.search.phrase import Phrase

TEXT = """## Opening files

The [`open()`](functions.html#open "open") function returns a **file object**; it is most
commonly used with two arguments: `open_url(filename, mode)`.
你好世界，今天天气很好，我们去公园里散步，然后一起吃饭。
La médiathèque ouvre à neuf heures.
"""


@pytest.mark.parametrize(
    "query",
    [
        "The open() function returns a file object; it is most commonly used",
        "THE OPEN FUNCTION RETURNS A FILE OBJECT",
        "used with two arguments: open_url(filename, mode)",
        "今天天气很好，我们去公园里散步，然后一起吃饭",
        "La me\u0301diathe\u0300que ouvre a\u0300 neuf heures",
        "ＴＨＥ　ＯＰＥＮ　ＦＵＮＣＴＩＯＮ　ＲＥＴＵＲＮＳ",
    ],
)
def test_markup_case_and_line_ends_do_not_hide_a_phrase(query: str) -> None:
    phrase = Phrase.of(query)
    assert phrase is not None
    assert phrase.is_in(TEXT)


@pytest.mark.parametrize("query", ["The function returns a file object", "functions html open function"])
def test_separated_words_are_no_phrase(query: str) -> None:
    phrase = Phrase.of(query)
    assert phrase is not None
    assert not phrase.is_in(TEXT)


@pytest.mark.parametrize("query", ["file object", "?! " * 20, ""])
def test_short_queries_are_no_phrase(query: str) -> None:
    assert Phrase.of(query) is None
