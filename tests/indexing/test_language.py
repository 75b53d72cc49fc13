import pytest

from crawlscope.indexing.language import language_of, primary_language


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("en-US", "en"),
        ("EN", "en"),
        ("en_us", "en"),
        ("de_DE.UTF-8", "de"),
        (" fr ", "fr"),
        ("de-DE, en", "de"),
        ('["pt-BR"]', "pt"),
        ("zh-Hant-TW", "zh"),
        ("fil", "fil"),
        ("iw", "he"),
        ("nb-NO", "no"),
        ("x-default", ""),
        ("und", ""),
        ("German", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_language_is_its_primary_tag_in_any_spelling(said: str | None, kept: str) -> None:
    assert primary_language(said) == kept


ENGLISH = "The boiler is inspected every morning, and the pressure is written into the log. " * 3
GERMAN = "Der Kessel wird jeden Morgen geprüft, und der Druck wird in das Buch eingetragen. " * 3
JAPANESE = "ボイラーは毎朝点検され、圧力は日誌に記録されます。水はきれいでなければなりません。" * 2


@pytest.mark.parametrize(
    ("markdown", "language"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        (JAPANESE, "ja"),
        ("Kessel", ""),
        ("", ""),
        (f"{ENGLISH}\n\n{GERMAN}", ""),
        (f"```\n{ENGLISH}\n```", ""),
    ],
)
def test_enough_words_identify_the_language(markdown: str, language: str) -> None:
    assert language_of(markdown) == language
