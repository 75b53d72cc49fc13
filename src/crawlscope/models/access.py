"""Keys of programs that use the service, each with a scope."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, now


class ApiKey(Base):
    """A key. The database has only its hash."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    name: Mapped[str] = mapped_column(String(100))
    """The program or person that has the key. Two keys may have the same name during a rotation."""
    scope: Mapped[str] = mapped_column(String(20))
    """The rights of the key: `receive`, `read` or `operate`."""
    digest: Mapped[bytes] = mapped_column(LargeBinary(), unique=True)
    """SHA-256 of the key, which is random, so that it needs no salt."""
    created_at: Mapped[datetime] = now()
    used_at: Mapped[datetime | None]
    """The time of a recent use, exact to a minute."""
    revoked_at: Mapped[datetime | None]
