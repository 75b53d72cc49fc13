import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from crawlscope.indexing.language import Identifier, language_of, primary_language


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


OURS = Identifier.from_model_file(MODEL_FILE, norm_probs=True)
THEIRS = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@pytest.mark.parametrize("text", [ENGLISH, GERMAN * 40, JAPANESE * 9, "x", "é" * 255, "\x00\x01", "1 2 3 4"])
def test_it_classifies_as_the_library_does(text: str) -> None:
    (language, probability), theirs = OURS.classify(text), THEIRS.classify(text)
    assert (language, probability) == (theirs[0], pytest.approx(theirs[1], rel=1e-4))
