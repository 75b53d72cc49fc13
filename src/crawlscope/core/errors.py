"""Every error of Crawlscope's own.

    CrawlscopeError
    ├── UsageError               the caller asked for something that cannot be
    │   ├── NotFoundError        an unknown crawl
    │   └── SettingsError        a setting that cannot work
    ├── DependencyError          a dependency is unavailable; another attempt can help
    │   ├── DatabaseUnavailable
    │   ├── EmbedderUnavailable
    │   ├── IndexUnavailable
    │   ├── RemoteUnavailable    another service
    │   │   ├── ChangedetectionUnavailable
    │   │   ├── FirecrawlUnavailable
    │   │   └── RerankerUnavailable
    │   └── ServiceUnavailable   no running service answers
    ├── RemoteRefused            another service refused, and would refuse again
    │   ├── ChangedetectionRefused
    │   └── FirecrawlRefused
    ├── FirecrawlJobUnknown      Firecrawl knows no such crawl, or no longer
    ├── GaveUp                   a supervised process cannot be kept running; the text says which and why
    ├── IndexUnusable            the stored index is damaged or made for other vectors: rebuild it
    └── PageError                this page cannot be indexed, and no further attempt can help

`retryable` says whether another attempt can end differently. `code` is stable: it is stored with failed pages
and programs may compare it.
"""


class CrawlscopeError(Exception):
    """Base of all; its text is one line that a user can act on."""

    retryable = False
    code = "internal_error"
    exit_code = 1
    """The exit code of a command that ends with this error."""


class UsageError(CrawlscopeError):
    code = "usage"


class NotFoundError(UsageError):
    code = "not_found"


class SettingsError(UsageError):
    code = "settings"
    exit_code = 2
    """Starting again changes nothing until the settings change."""


class DependencyError(CrawlscopeError):
    """`part` names the dependency."""

    retryable = True
    code = "dependency_unavailable"
    part = "dependency"


class DatabaseUnavailable(DependencyError):
    code = "database_unavailable"
    part = "database"


class EmbedderUnavailable(DependencyError):
    code = "embedder_unavailable"
    part = "embedder"


class RemoteUnavailable(DependencyError):
    def __init__(self, message: str, *, retry_after: float | None = None, maybe_done: bool = False) -> None:
        """`retry_after`: seconds that it asks to wait. `maybe_done`: it may have done what was requested, so
        that another attempt could do it twice.
        """
        super().__init__(message)
        self.retry_after = retry_after
        self.maybe_done = maybe_done


class ChangedetectionUnavailable(RemoteUnavailable):
    code = "changedetection_unavailable"
    part = "changedetection"


class FirecrawlUnavailable(RemoteUnavailable):
    code = "firecrawl_unavailable"
    part = "firecrawl"


class RerankerUnavailable(RemoteUnavailable):
    code = "reranker_unavailable"
    part = "reranker"


class IndexUnavailable(DependencyError):
    code = "index_unavailable"
    part = "index"


class ServiceUnavailable(DependencyError):
    code = "service_unavailable"
    part = "service"


class RemoteRefused(CrawlscopeError):
    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class ChangedetectionRefused(RemoteRefused):
    code = "changedetection_refused"


class FirecrawlRefused(RemoteRefused):
    code = "firecrawl_refused"


class FirecrawlJobUnknown(CrawlscopeError):
    """`expired` is true where Firecrawl says so; a self-hosted one only answers that it knows none."""

    code = "firecrawl_job_unknown"

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class IndexUnusable(CrawlscopeError):
    code = "index_unusable"


class GaveUp(CrawlscopeError):
    code = "gave_up"

    def __init__(self, message: str, exit_code: int = CrawlscopeError.exit_code) -> None:
        """`exit_code`: of the process, if it says what is to be done."""
        super().__init__(message)
        self.exit_code = exit_code


class PageError(CrawlscopeError):
    """`code` names what is wrong with the page, such as `binary_content` or `http_404`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def one_line(error: BaseException) -> str:
    """Its text, or its name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
