import pytest

from crawlscope.indexing.phrase import Phrase

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
        "天气很好，我们去公园里散步",
        "La me\u0301diathe\u0300que ouvre a\u0300 neuf heures",
        "ＴＨＥ　ＯＰＥＮ　ＦＵＮＣＴＩＯＮ　ＲＥＴＵＲＮＳ",
    ],
)
def test_markup_case_and_line_ends_do_not_hide_a_phrase(query: str) -> None:
    assert Phrase.of(query).is_in(TEXT)
    assert Phrase.of(query).is_distinctive


@pytest.mark.parametrize(
    "query",
    ["The function returns a file object", "functions html open function", "pen function", "used wit"],
)
def test_separated_words_are_no_phrase(query: str) -> None:
    assert not Phrase.of(query).is_in(TEXT)


@pytest.mark.parametrize("query", ["PEP 405", "http/404", "CVE-2024-3094", "127.0.0.1", "Python 3.12"])
def test_a_name_with_a_number_is_meant_word_for_word(query: str) -> None:
    assert Phrase.of(query).is_distinctive


@pytest.mark.parametrize("query", ["file object", "405", "sha256", "why 3 to 5 of us", "?! " * 20, ""])
def test_short_queries_are_no_quotations(query: str) -> None:
    assert not Phrase.of(query).is_distinctive


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("opening files", "Opening Files"),
        ("opening files", "Opening files | The manual"),
        ("Opening files - The manual", "Opening files - The manual"),
        ("opening-files", "Opening files — The manual — Example"),
    ],
)
def test_the_name_of_the_site_is_no_part_of_a_title(query: str, title: str) -> None:
    assert Phrase.of(query).is_title(title)


@pytest.mark.parametrize(
    ("query", "title"),
    [("the manual", "Opening files | The manual"), ("opening", "Opening files"), ("?", "!"), ("a-b", "a")],
)
def test_a_part_of_a_title_is_no_title(query: str, title: str) -> None:
    assert not Phrase.of(query).is_title(title)
