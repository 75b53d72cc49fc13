import pytest

from crawlscope.indexing.language import primary_language


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
        ("x-default", ""),
        ("und", ""),
        ("German", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_language_is_its_primary_tag_however_it_is_spelled(said: str | None, kept: str) -> None:
    assert primary_language(said) == kept
