"""Every error of Crawlscope's own.

    CrawlscopeError
    ├── UsageError               the caller asked for something that cannot be
    │   ├── NotFoundError        a crawl that nobody knows
    │   └── SettingsError        a setting that cannot work
    ├── DependencyError          a part that Crawlscope needs is away; trying again can help
    │   ├── DatabaseUnavailable
    │   ├── EmbedderUnavailable
    │   ├── IndexUnavailable
    │   ├── RemoteUnavailable    another service, which Crawlscope gives orders
    │   │   ├── ChangedetectionUnavailable
    │   │   └── FirecrawlUnavailable
    │   └── ServiceUnavailable   no running service answers
    ├── RemoteRefused            another service said no, and will say it again
    │   ├── ChangedetectionRefused
    │   └── FirecrawlRefused
    ├── FirecrawlJobUnknown      Firecrawl knows no such crawl, or no longer
    ├── GaveUp                   a process of `up` cannot be kept alive; the text says which and why
    ├── IndexUnusable            the stored index is damaged or made for other vectors: rebuild it
    └── PageError                this page cannot be indexed, however often it is tried

`retryable` tells who called whether another attempt can end differently. `code` is stable: it is
stored with failed pages and programs may compare it.
"""


class CrawlscopeError(Exception):
    """Base of all; its text is one line that a user can act on."""

    retryable = False
    code = "internal_error"


class UsageError(CrawlscopeError):
    code = "usage"


class NotFoundError(UsageError):
    code = "not_found"


class SettingsError(UsageError):
    code = "settings"


class DependencyError(CrawlscopeError):
    """`part` names the culprit."""

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
        """`retry_after`: seconds that it asks to wait. `maybe_done`: what was asked for may have been done
        all the same, so that asking again could do it twice.
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
    """`expired` is true where Firecrawl says so; a self-hosted one has just forgotten."""

    code = "firecrawl_job_unknown"

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class IndexUnusable(CrawlscopeError):
    code = "index_unusable"


class GaveUp(CrawlscopeError):
    code = "gave_up"


class PageError(CrawlscopeError):
    """`code` says what about the page is wrong, such as `binary_content` or `http_404`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
