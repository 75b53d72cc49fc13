"""The HTTP API's answers on deliveries."""

from pydantic import BaseModel, ConfigDict


class DeliveriesReplayed(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    deliveries: int
    """How many were read again."""
    changed: int
    """How many of them say something else now."""
    pages_queued: int
    unreadable: int
    """Deliveries whose body is no longer kept, or cannot be read."""
    newly_known: int
    """Events of a type that was not known when they came."""
    crawls: list[str]
    """Crawls that the changes belong to."""
