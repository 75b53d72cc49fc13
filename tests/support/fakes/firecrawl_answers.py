"""The answers of two versions of Firecrawl's errors API on failed pages, word for word."""

from tests.support.fakes.firecrawl_site import Failure

OLDER_ENGINES_FAILED = (
    "All scraping engines failed! -- Double check the URL to make sure it's not broken. If the issue "
    "persists, contact us at help@firecrawl.com."
)
NEWER_ENGINES_FAILED = (
    "All scraping engines failed to retrieve content from this URL. Engines tried: [fetch]. This usually "
    "happens when: (1) The URL is invalid or the page doesn't exist (404), (2) The website is blocking "
    "automated access, (3) The website is down or unreachable, (4) The page requires authentication. Double "
    "check the URL is correct and accessible in a browser. Check your server logs for more detailed error "
    "information from each engine."
)
NEWER_TIMEOUT = (
    "The scrape operation timed out before completing. This happens when a page takes too long to load, "
    "render, or process. Possible causes: (1) The website is slow or unresponsive, (2) The page has heavy "
    "JavaScript that takes time to execute, (3) The page is very large or has many resources to load, (4) "
    "Network latency is high. To fix this, try increasing the timeout parameter in your scrape request, or "
    "if using actions, ensure your selectors are correct and the page is ready before actions are executed."
)
OLDER_DROPPED = "(Internal server error) - Parent crawl/batch scrape was cancelled"
NEWER_DROPPED = (
    "This scrape was not completed because the parent crawl or batch scrape was cancelled. This happens when "
    "you call the cancel endpoint on a crawl or batch scrape, or when the operation is stopped for another "
    "reason. Any URLs that were already scraped before cancellation are still available in the results."
)
NEWER_DROPPED_WRAPPED = (
    f'An unexpected internal error occurred while processing your request. Error details: "{NEWER_DROPPED}". '
    "This is typically a temporary issue. Please try your request again. If the problem persists, contact "
    "support with your request ID and this error message for investigation."
)


def older_failures(base: str) -> dict[str, Failure]:
    """By the code that each is to have."""
    return {
        "scrape_all_engines_failed": Failure(
            f"{base}reset", "SCRAPE_ALL_ENGINES_FAILED", OLDER_ENGINES_FAILED
        ),
        "external_link": Failure(
            f"{base}elsewhere", "UNKNOWN_ERROR", "(Internal server error) - External URL not allowed"
        ),
        "scrape_timeout": Failure(f"{base}slow", "SCRAPE_TIMEOUT", "Scrape timed out"),
    }


def newer_failures(base: str) -> dict[str, Failure]:
    """The same of the version of August 2026."""
    return {
        "scrape_all_engines_failed": Failure(
            f"{base}reset", "SCRAPE_ALL_ENGINES_FAILED", NEWER_ENGINES_FAILED
        ),
        "external_link": Failure(f"{base}elsewhere", "CRAWL_DENIAL", "EXTERNAL_LINK"),
        "scrape_timeout": Failure(f"{base}slow", "SCRAPE_TIMEOUT", NEWER_TIMEOUT),
    }
