import pytest

from crawlscope.core.errors import SettingsError
from crawlscope.core.expectations import Expectation, parse_expectation
from crawlscope.core.settings import load_settings
from crawlscope.core.vocabulary import CrawlNumber


def test_an_expectation_is_read_as_it_is_written() -> None:
    text = "pages >= 90 % of the mean of the last 10"
    assert parse_expectation(text) == Expectation(text, CrawlNumber.PAGES, True, 0.9, 10)
    text = "duration≤1.5min"
    assert parse_expectation(text) == Expectation(text, CrawlNumber.DURATION, False, 90_000)
    text = "failed <= 2 %"
    assert parse_expectation(text) == Expectation(text, CrawlNumber.FAILED, False, 2.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pages", "must be like"),
        ("words >= 10", "must be like"),
        ("pages >= 10 of the mean of the last 10", "another unit after 10: %"),
        ("pages >= 10 %", "another unit after 10: no unit"),
        ("failed <= 10", "another unit after 10: %"),
        ("duration <= 10", "ms, s, min, h"),
        ("pages >= 90 % of the mean of the last 0", "must be like"),
    ],
)
def test_what_cannot_be_read_is_explained(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_expectation(text)


@pytest.mark.parametrize("value", ["{", "[1]", '{"https://a.example/": "pages"}', '{"*": ["pages"]}'])
def test_a_setting_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CRAWLSCOPE_EXPECTATIONS", value)
    with pytest.raises(SettingsError, match=r"^CRAWLSCOPE_EXPECTATIONS"):
        load_settings()


def test_a_setting_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWLSCOPE_EXPECTATIONS", '{"*": ["pages >= 10"]}')
    [expectation] = load_settings().site_expectations["*"]
    assert expectation.bound == 10
