"""The requests and answers of the endpoints of keys."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class KeyScope(StrEnum):
    RECEIVE = "receive"
    """Deliver to the webhook endpoints, and nothing else."""
    READ = "read"
    """Read everything, search included."""
    OPERATE = "operate"
    """Deliver, read, and start, cancel, retry or delete crawls. Only the API secret manages keys."""


class KeyInfo(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    scope: KeyScope
    created_at: datetime
    used_at: datetime | None = Field(description="a recent use, exact to a minute")
    revoked_at: datetime | None


class KeyRequest(BaseModel):
    name: str = Field(min_length=1, max_length=100, description="the program or person that gets the key")
    scope: KeyScope


class NewKey(KeyInfo):
    key: str = Field(description="the key, which is shown once: the service has only its hash")


class KeyList(BaseModel):
    keys: list[KeyInfo]
    total: int
