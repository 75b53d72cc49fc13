"""The HTTP API's answers on deliveries."""

from pydantic import BaseModel, ConfigDict


class DeliveriesReplayed(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    deliveries: int
    """The number of reprocessed deliveries."""
    changed: int
    """The number of these whose content differs by this version's rules."""
    pages_queued: int
    unreadable: int
    """Deliveries whose body is no longer stored, or cannot be read."""
    newly_known: int
    """Events of a type that was not known when they came."""
    crawls: list[str]
    """Crawls that the changes belong to."""
