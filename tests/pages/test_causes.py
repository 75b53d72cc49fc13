"""Each cause has one code and a short sentence, from any words or codes of Firecrawl."""

import pytest

from crawlscope.pages.causes import MAX_SENTENCE_LENGTH, NO_REASON, cause_of, mentions_cancel, precision
from tests.support.fakes.firecrawl_answers import (
    NEWER_DROPPED,
    NEWER_DROPPED_WRAPPED,
    NEWER_ENGINES_FAILED,
    NEWER_TIMEOUT,
    OLDER_DROPPED,
    OLDER_ENGINES_FAILED,
    newer_failures,
    older_failures,
)

UNKNOWN = "(Internal server error) - {}"
DROPPED = "crawl_cancelled"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (OLDER_ENGINES_FAILED, None, "scrape_all_engines_failed"),
        (NEWER_ENGINES_FAILED, None, "scrape_all_engines_failed"),
        ("anything", "SCRAPE_ALL_ENGINES_FAILED", "scrape_all_engines_failed"),
        ("Scrape timed out", None, "scrape_timeout"),
        (NEWER_TIMEOUT, None, "scrape_timeout"),
        ("Request timeout of 30000ms exceeded", "UNKNOWN_ERROR", "scrape_timeout"),
        ("EXTERNAL_LINK", None, "external_link"),
        ("EXTERNAL_LINK", "CRAWL_DENIAL", "external_link"),
        (UNKNOWN.format("External URL not allowed"), "UNKNOWN_ERROR", "external_link"),
        ("URL blocked by robots.txt", "CRAWL_DENIAL", "robots_blocked"),
        ("ROBOTS_TXT", "CRAWL_DENIAL", "robots_blocked"),
        ("URL matches exclude pattern", "UNKNOWN_ERROR", "exclude_pattern"),
        ("EXCLUDE_PATTERN", "CRAWL_DENIAL", "exclude_pattern"),
        ("URL does not match required include pattern", "CRAWL_DENIAL", "include_pattern"),
        ("URL exceeds maximum crawl depth", None, "depth_limit"),
        ("Source URL is not allowed by crawl configuration", "CRAWL_DENIAL", "crawl_denial"),
        ("DNS resolution failed for hostname: gone.example.", None, "scrape_dns_resolution_error"),
        ("An SSL error occurred while scraping the URL. If …", None, "scrape_ssl_error"),
        ("Specified URL is failing to load in the browser. Error code: X", None, "scrape_site_error"),
        ("Scrape resulted in unsupported file: too big", None, "scrape_unsupported_file_error"),
        ("Insufficient time to process PDF of 90 pages. Increase the timeout parameter", None,
         "scrape_pdf_insufficient_time_error"),
        ("Raced redirect error", None, "scrape_raced_redirect_error"),
        ("Something of the future", "SCRAPE_NEW_ERROR", "scrape_new_error"),
        ("(Internal server error) - Cannot read properties of undefined", "UNKNOWN_ERROR", "scrape_failed"),
        ("Cannot read properties of undefined", None, "scrape_failed"),
        ({"code": "SCRAPE_ALL_ENGINES_FAILED"}, None, "scrape_all_engines_failed"),
        ({"code": "SCRAPE_TIMEOUT", "message": "Scrape timed out"}, None, "scrape_timeout"),
        ({}, None, "scrape_failed"),
        (None, None, "scrape_failed"),
        (None, "SCRAPE_SSL_ERROR", "scrape_ssl_error"),
        (42, None, "scrape_failed"),
    ],
)  # fmt: skip
def test_each_cause_has_one_code(words, code, expected):
    assert cause_of(words, code).code == expected


@pytest.mark.parametrize("failures", [older_failures, newer_failures])
def test_events_and_the_errors_api_agree(failures):
    for code, failure in failures("https://docs.example/").items():
        assert cause_of(failure.error, failure.code).code == cause_of(failure.error).code == code


@pytest.mark.parametrize(
    "words",
    [
        OLDER_DROPPED,
        "Parent crawl/batch scrape was cancelled",
        "parent crawl/batch scrape was canceled",
        NEWER_DROPPED,
        NEWER_DROPPED_WRAPPED,
        "The parent batch scrape has been cancelled.",
        "Crawl was cancelled",
        "the batch scrape was canceled by its owner",
        "CRAWL CANCELLED",
    ],
)
@pytest.mark.parametrize("code", [None, "UNKNOWN_ERROR"])
def test_pages_dropped_by_a_cancel_are_recognised(words, code):
    assert cause_of(words, code).code == DROPPED


def test_a_separate_code_also_means_a_cancel():
    assert cause_of("Job cancelled", "SCRAPE_JOB_CANCELLED").code == DROPPED


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Scrape timed out", "SCRAPE_TIMEOUT"),
        (OLDER_ENGINES_FAILED, "SCRAPE_ALL_ENGINES_FAILED"),
        (NEWER_ENGINES_FAILED, None),
        ("(Internal server error) - Cannot read properties of undefined", "UNKNOWN_ERROR"),
        ("The request to https://docs.example/cancelled-flights failed", "SCRAPE_SITE_ERROR"),
    ],
)
def test_a_page_failure_in_a_cancelled_crawl_is_not_dropped(words, code):
    assert cause_of(words, code, crawl_cancelled=True).code != DROPPED


def test_vague_words_mean_a_cancel_only_in_a_cancelled_crawl():
    assert cause_of("Job was cancelled", "UNKNOWN_ERROR", crawl_cancelled=True).code == DROPPED
    assert cause_of("Job was cancelled", "UNKNOWN_ERROR").code == "scrape_failed"
    assert mentions_cancel("Job was canceled")
    assert not mentions_cancel("All scraping engines failed")
    assert not mentions_cancel(None)


def test_a_paragraph_gets_a_short_sentence_and_keeps_the_original():
    for words in (OLDER_ENGINES_FAILED, NEWER_ENGINES_FAILED, NEWER_TIMEOUT, NEWER_DROPPED_WRAPPED):
        cause = cause_of(words)
        assert len(cause.words) < 80
        assert cause.detail == words


@pytest.mark.parametrize(
    ("error", "words", "detail"),
    [
        ("Scrape timed out", "Scrape timed out", None),
        ("the connection was refused", "the connection was refused", None),
        (UNKNOWN.format("Odd"), "Odd", UNKNOWN.format("Odd")),
        ("EXTERNAL_LINK", "it leads to another site", "EXTERNAL_LINK"),
        ("First. " + "More of it. " * 20, "First.", "First. " + "More of it. " * 20),
        (None, NO_REASON, None),
        ({}, NO_REASON, None),
        ({"code": "SCRAPE_ODD"}, "SCRAPE_ODD", None),
    ],
)
def test_short_errors_are_unchanged(error, words, detail):
    cause = cause_of(error)
    assert (cause.words, cause.detail) == (words, detail)


def test_sentences_have_a_maximum_length():
    assert len(cause_of("word " * 1_000).words) <= MAX_SENTENCE_LENGTH


def test_a_failure_of_the_page_is_the_most_precise():
    ranked = [precision(code) for code in ("scrape_failed", DROPPED, "crawl_denial", "http_404")]
    assert ranked == sorted(set(ranked))
