import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.indexing.sparse import Bm25Encoder

encoder = Bm25Encoder()


def shared_terms(query: str, document: str) -> set[int]:
    return set(encoder.encode_query(query).indices) & set(encoder.encode_document(document).indices)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("running", "She runs every day"),
        ("user name", "def get_user_name(self):"),
        ("getUserName", "call getUserName() first"),
        ("user", "call getUserName() first"),
        ("Привет", "Скажи привет миру"),
        ("café", "Le café est fermé"),
        ("天气", "你好世界，今天天气很好"),
        ("検索", "日本語のテキストを検索する"),
        ("텍스트", "한국어 텍스트 검색"),
        ("ภาษา", "ฉันเรียนภาษาไทย"),
        ("水", "水"),
        ("犬", "庭に犬がいる"),
        ("税", "消费税率"),
        ("サ", "サービス"),
        ("서울", "서울에서 만나요"),
        ("박물관", "국립박물관은 크다"),
        ("집", "집에서"),
        ("ភាសា", "រៀនភាសាខ្មែរ"),
        ("ລາວ", "ພາສາລາວ"),
        ("မြန်မာ", "ဤသည်မြန်မာဘာသာဖြစ်သည်"),
        ("telephone", "Le téléphone sonne"),
        ("téléphone", "LE TELEPHONE SONNE"),
        ("e\u0301te\u0301", "été"),
        ("Muller", "Frau Müller"),
        ("Mueller", "Frau Müller"),
        ("Müller", "Frau Mueller"),
        ("strasse", "Lange Straße"),
        ("lodz", "Łódź"),
        ("Ελλαδα", "στην Ελλάδα"),
        ("елка", "Ёлка"),
        ("замок", "за́мок на холме"),
        ("كتاب", "كِتَابٌ"),
        ("احمد", "أحمد"),
        ("שלום", "שָׁלוֹם"),
        ("123", "１２３"),
        ("１２３", "123"),
        ("123", "١٢٣"),
        ("API", "ＡＰＩ"),
        ("カメラ", "ｶﾒﾗ"),
    ],
)
def test_a_query_shares_terms_with_a_text_that_has_its_words(query: str, document: str) -> None:
    assert shared_terms(query, document)


WORDS = st.one_of(
    st.sampled_from(["getUserName", "get_user_name", "__x__", "running", "the", "HTTPServer", "été", "東京"]),
    st.text(string.ascii_letters + string.digits + "_", max_size=8),
)
SIGNS = st.characters(min_codepoint=0x80, categories=["P", "S", "Z"]) | st.sampled_from("’“”–—…·•→™№＿🅐")
SEPARATORS = st.text(
    st.sampled_from(string.punctuation + string.whitespace + "\x00\x1c\x7f") | SIGNS, min_size=1, max_size=3
)


@given(
    texts=st.lists(st.lists(st.tuples(WORDS, SEPARATORS)).map(lambda pairs: "".join(map("".join, pairs)))),
    language=st.sampled_from(["", "en", "de", "ja", "pl"]),
)
def test_texts_of_a_page_have_the_terms_that_each_has_alone(texts: list[str], language: str) -> None:
    together = encoder.encode_documents(texts, language)
    for vector, text in zip(together, texts, strict=True):
        alone = encoder.encode_document(text, language)
        assert (list(vector.indices), list(vector.values)) == (list(alone.indices), list(alone.values))


def test_unrelated_texts_share_no_terms() -> None:
    assert not shared_terms("天气", "日本語のテキスト")
    assert not shared_terms("apple", "The quince is ripe")


def test_letters_of_their_own_stay_apart() -> None:
    assert not shared_terms("мои", "мой")
    assert not shared_terms("かき", "がぎ")


def test_single_characters_do_not_make_a_text_longer() -> None:
    """Nor change its weights: a query of several characters is scored by pairs alone."""
    vector = encoder.encode_document("消費税率")
    weights = dict(zip(vector.indices, vector.values, strict=True))
    pairs = encoder.encode_query("消費税率").indices
    three_words = encoder.encode_document("apple pear plum")
    assert len(weights) == 3 + 4
    assert {weights[pair] for pair in pairs} == set(three_words.values)


@pytest.mark.parametrize(
    ("language", "query", "document"),
    [
        ("de", "Häuser", "Das Haus am See"),
        ("de", "Hauser", "Das Haus am See"),
        ("es", "canciones", "Una canción de cuna"),
        ("es", "cancion", "Las canciones de cuna"),
        ("fr", "chevaux", "Les chevaux courent"),
        ("ru", "книги", "Новая книга"),
        ("ar", "الكتاب", "كتاب جديد"),
        ("pl", "dom", "Stary dom"),
        ("ja", "servers", "このserverは速い"),
        ("", "servers", "server.start()"),
    ],
)
def test_words_are_stemmed_in_their_own_language(language: str, query: str, document: str) -> None:
    terms = set(encoder.encode_query(query, [language]).indices)
    assert terms & set(encoder.encode_document(document, language).indices)


def test_a_word_of_unclear_language_is_stemmed_in_each() -> None:
    query = set(encoder.encode_query("Häuser", ["en", "de"]).indices)
    assert query & set(encoder.encode_document("Das Haus", "de").indices)
    assert query & set(encoder.encode_document("The Häuser of Berlin", "en").indices)


def test_a_stop_word_of_one_language_does_not_search_in_the_other() -> None:
    assert list(encoder.encode_query("la casa", ["en", "es"]).indices) == list(
        encoder.encode_query("casa", ["en", "es"]).indices
    )
    assert list(encoder.encode_query("la", ["en", "es"]).indices)


def test_a_word_with_two_spellings_counts_once() -> None:
    assert sum(encoder.encode_query("Frau Müller").values) == pytest.approx(2.0)


def test_text_without_words_has_no_terms() -> None:
    for text in ("", " \n", "the of and", "?!"):
        assert list(encoder.encode_query(text).indices) == []
        assert list(encoder.encode_document(text).values) == []


def test_a_term_weighs_more_when_repeated_and_less_in_a_long_text() -> None:
    def weight(text: str) -> float:
        vector = encoder.encode_document(text)
        (apple,) = encoder.encode_query("apple").indices
        return float(vector.values[list(vector.indices).index(apple)])

    assert weight("apple apple pear") > weight("apple pear plum") > weight("apple " + "pear " * 200)


def test_terms_keep_their_numbers() -> None:
    """With other numbers, texts that were indexed before would not be found."""
    assert list(encoder.encode_query("apple").indices) == [1085451005]


def test_a_repeated_word_of_a_query_counts_as_often_as_it_stands_there() -> None:
    query = encoder.encode_query("cats, dogs and more cats")
    (cat,) = encoder.encode_query("cat").indices
    weights = dict(zip(query.indices, query.values, strict=True))
    assert weights.pop(cat) == 2.0
    assert set(weights.values()) == {1.0}
