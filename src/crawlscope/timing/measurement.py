"""The result of a finished `TimingContext`, to be stored, counted or traced."""

from typing import Any, Protocol


class Measurement(Protocol):
    operation_type: str
    operation_name: str
    request_id: str | None
    job_id: str | None
    crawl_id: str | None
    document_url: str | None
    metadata: dict[str, Any]
    success: bool
    error_message: str | None
    timestamp: float
    """When it began, in seconds since 1970."""

    @property
    def duration_ms(self) -> float: ...
