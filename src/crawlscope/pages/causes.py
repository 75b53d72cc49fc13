"""Causes of failed pages, one code each, from Firecrawl's events and API. Pure rules.

Firecrawl's errors API returns codes, its events only words. Both wrap unforeseen errors into `UNKNOWN_ERROR`
with the reason somewhere in a paragraph. The codes are Firecrawl's own in lower case, if it has one.
"""

import re
from dataclasses import dataclass

from crawlscope.core.values import storable

DROPPED_BY_CANCEL = "crawl_cancelled"
UNCLEAR = "scrape_failed"
"""The cause is unknown."""
ROBOTS_BLOCKED = "robots_blocked"
DENIED = "crawl_denial"
"""A rule of the crawl excludes the page; which one is unknown."""

MAX_WORDS_LENGTH = 100
MAX_SENTENCE_LENGTH = 200
MAX_CODE_LENGTH = 100
NO_REASON = "Firecrawl gave no reason"


@dataclass(frozen=True)
class Cause:
    """Why one page failed."""

    code: str
    words: str
    """One short sentence."""
    detail: str | None
    """Firecrawl's words, if they differ."""


@dataclass(frozen=True)
class _Known:
    code: str
    says: str
    """A pattern that Firecrawl's words contain."""
    words: str


_KNOWN = (
    _Known("external_link", r"external[ _](link|url)", "it leads to another site"),
    _Known(ROBOTS_BLOCKED, r"robots[ ._]?txt|blocked by robots", "robots.txt forbids this page"),
    _Known("depth_limit", r"maximum (crawl|discovery) depth|depth_limit", "it is deeper than the crawl goes"),
    _Known("exclude_pattern", r"exclude[ _]pattern", "a pattern excludes this page"),
    _Known("include_pattern", r"include[ _]pattern", "no pattern includes this page"),
    _Known("file_type", r"file type that is not crawled|\bfile_type\b", "files of this type are not crawled"),
    _Known("url_parse_error", r"url could not be parsed|url_parse_error", "its URL cannot be read"),
    _Known(
        "backward_crawling",
        r"crawlEntireDomain|allowBackward|backward_crawling",
        "it is above the start URL, and the crawl stays below it",
    ),
    _Known("social_media", r"social media|social_media", "links to social media and mail are not followed"),
    _Known("section_link", r"section anchor|section_link", "it is a section of another page"),
    _Known(
        "scrape_pdf_insufficient_time_error",
        r"insufficient time to process pdf",
        "the PDF has too many pages for the time allowed",
    ),
    _Known(
        "concurrency_queue_timeout",
        r"waiting for a concurrency slot",
        "it waited too long for its turn at Firecrawl",
    ),
    _Known(
        "scrape_all_engines_failed",
        r"all scraping engines failed|no engines? left",
        "none of Firecrawl's engines could fetch the page",
    ),
    _Known(
        "scrape_dns_resolution_error",
        r"dns resolution|err_name_not_resolved|enotfound",
        "its host name cannot be looked up",
    ),
    _Known("scrape_ssl_error", r"\b(ssl|tls)\b.{0,40}error", "its TLS certificate or connection is bad"),
    _Known(
        "scrape_site_error", r"fail(ing|ed) to load in the browser", "the page does not load in a browser"
    ),
    _Known("scrape_unsupported_file_error", r"unsupported file", "it is a file that Firecrawl cannot read"),
    _Known("scrape_action_error", r"actions?(\(s\))? failed", "an action on the page failed"),
    _Known("scrape_pdf_prefetch_failed", r"prefetch pdf", "the PDF is protected and could not be fetched"),
    _Known("scrape_pdf_antibot_error", r"pdf scrape was prevented", "the PDF is protected against robots"),
    _Known(
        "scrape_raced_redirect_error",
        r"raced redirect|already scraped this url",
        "another page of the crawl leads to the same address",
    ),
    _Known(
        "scrape_zdr_violation_error",
        r"zero ?data ?retention",
        "an option does not go together with zero data retention",
    ),
    _Known(
        "unsafe_domain_blocked",
        r"unsafe_domain_blocked|domain.{0,40}unsafe",
        "Firecrawl takes its domain for unsafe",
    ),
    _Known(
        "blocklisted",
        r"(website|site) is (not|no longer) (currently )?supported|blocklist|blacklist",
        "Firecrawl does not scrape this site",
    ),
    _Known("scrape_timeout", r"timed[ -]?out|time-?out|took too long", "it took longer than Firecrawl waits"),
)
_CODES = {
    "SCRAPE_DOCUMENT_PREFETCH_FAILED": "the document is protected and could not be fetched",
    "SCRAPE_DOCUMENT_ANTIBOT_ERROR": "the document is protected against robots",
    "SCRAPE_PROXY_SELECTION_ERROR": "no proxy fits the place it was to be scraped from",
    "SCRAPE_NO_CACHED_DATA": "it is not in Firecrawl's cache",
    "SCRAPE_LOCKDOWN_CACHE_MISS": "it is not in Firecrawl's cache",
    "SCRAPE_RETRY_LIMIT": "Firecrawl has tried it too often",
    "SCRAPE_PDF_OCR_REQUIRED": "the PDF holds no text but pictures of it",
    **{known.code.upper(): known.words for known in _KNOWN},
}
"""Firecrawl's codes and their meaning."""
_GENERIC = {"", "UNKNOWN_ERROR", "SCRAPE_UNKNOWN_ERROR", UNCLEAR.upper(), DENIED.upper()}
_DROPPED_CODES = {"SCRAPE_JOB_CANCELLED", "SCRAPE_JOB_CANCELED", DROPPED_BY_CANCEL.upper()}
_DROPPED_WORDS = "dropped because the crawl was cancelled"
_DROPPED = re.compile(
    r"\bparent\b.{0,40}\b(crawl|batch|scrape|job)\b.{0,40}\bcancell?"
    r"|\b(crawl|batch|batch scrape)( job)? ((was|is|got|has been|had been) )?cancell?ed\b",
    re.IGNORECASE | re.DOTALL,
)
_CANCELLED = re.compile(r"\bcancell?(ed|ation|ing)\b", re.IGNORECASE)
_WRAPPED = (
    re.compile(r"^\s*\(Internal server error\)\s*-\s*(?P<inner>.+)$", re.IGNORECASE | re.DOTALL),
    re.compile(r"Error details:\s*\"(?P<inner>.+?)\"\s*\.\s*This is typically", re.IGNORECASE | re.DOTALL),
)
_PATTERNS = [(known, re.compile(known.says, re.IGNORECASE | re.DOTALL)) for known in _KNOWN]
_BARE_CODE = re.compile(r"[A-Z0-9_]+")


def cause_of(error: object, code: str | None = None, *, crawl_cancelled: bool = False) -> Cause:
    """`error` is Firecrawl's: words, or an object with its own code; `code` is the code of its errors API.

    The `words` are Firecrawl's own if they are short, else those of a known cause, else Firecrawl's first
    sentence. In a crawl that was cancelled, a failure with words of a cancel and nothing more precise is
    `DROPPED_BY_CANCEL`.
    """
    if isinstance(error, dict):
        code = code or _text(error.get("code"))
        error = error.get("message") or error.get("error")
    said = _text(error)
    unwrapped = (pattern.search(said) for pattern in _WRAPPED)
    inner = next((found["inner"] for found in unwrapped if found), said).strip()
    found_code, known = _code(inner, (code or "").strip().upper(), crawl_cancelled)
    if inner and len(inner) <= MAX_WORDS_LENGTH and not _BARE_CODE.fullmatch(inner):
        words = inner
    else:
        sentence = re.split(r"(?<=[.!?])\s", inner, maxsplit=1)[0]
        if len(sentence) > MAX_SENTENCE_LENGTH:
            sentence = f"{sentence[: MAX_SENTENCE_LENGTH - 1]}…"
        words = known or sentence or code or NO_REASON
    return Cause(found_code[:MAX_CODE_LENGTH], words, said if said and said != words else None)


def error_words(error: object) -> str | None:
    """The message of an error (words or an object), or at least its code. None for no error."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("error") or error.get("code")
    return storable(str(error)) if error else None


def precision(code: str | None) -> int:
    """How precise a code is: of two failures of one page the more precise one counts.

    A cause of the page itself is more precise than a cancelled crawl, and that than an unknown cause.
    """
    if code is None or code == UNCLEAR:
        return 0
    return {DROPPED_BY_CANCEL: 1, DENIED: 2}.get(code, 3)


def mentions_cancel(words: str | None) -> bool:
    """Whether the words of a failure mention a cancel, perhaps not of the crawl."""
    return bool(words and _CANCELLED.search(words))


def _code(inner: str, code: str, crawl_cancelled: bool) -> tuple[str, str | None]:
    """The code, and its meaning if it is a known one."""
    if code in _DROPPED_CODES or _DROPPED.search(inner):
        return DROPPED_BY_CANCEL, _DROPPED_WORDS
    if code in _CODES:
        return code.lower(), _CODES[code]
    for known, pattern in _PATTERNS:
        if pattern.search(inner) and (code in _GENERIC):
            return known.code, known.words
    if code not in _GENERIC:
        return code.lower(), None
    if crawl_cancelled and mentions_cancel(inner):
        return DROPPED_BY_CANCEL, _DROPPED_WORDS
    return (DENIED, "the crawl's rules leave this page out") if code == DENIED.upper() else (UNCLEAR, None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
