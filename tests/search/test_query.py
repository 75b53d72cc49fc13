import pytest

from crawlscope.search.query import ParsedQuery


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("cats sleep", ParsedQuery("cats sleep")),
        ('"cats sleep" at night', ParsedQuery("cats sleep at night", ("cats sleep",))),
        ("“a b” „c d“ «e»", ParsedQuery("a b c d e", ("a b", "c d", "e"))),
        ("cats -dogs", ParsedQuery("cats", (), ("dogs",))),
        ('cats -"dogs bark" -mice', ParsedQuery("cats", (), ("dogs bark", "mice"))),
        ('"cats" -dogs "sleep"', ParsedQuery("cats sleep", ("cats", "sleep"), ("dogs",))),
    ],
)
def test_quotation_marks_require_and_a_hyphen_excludes(query: str, expected: ParsedQuery) -> None:
    assert ParsedQuery.of(query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "well-known e-mail",
        "tar -x --verbose",
        "5 -3",
        'a 3.5" disk and a 5.25" disk',
        'an "open quotation',
        '""',
        '" - "',
        "- dogs",
        "-dogs",
        '-"dogs bark"',
        "?!",
    ],
)
def test_other_marks_are_part_of_the_words(query: str) -> None:
    assert ParsedQuery.of(query) == ParsedQuery(query)
