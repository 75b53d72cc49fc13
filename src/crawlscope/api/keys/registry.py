"""Keys of programs: made, listed, revoked, and recognised in requests."""

import asyncio
import secrets
import time
from contextlib import suppress
from hashlib import sha256
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.api.keys.schemas import KeyInfo, KeyList, KeyScope, NewKey
from crawlscope.core.errors import DatabaseUnavailable, NotFoundError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database

KEYS = models.table_of(models.ApiKey)
PREFIX = "csk_"
"""So that scanners for leaked secrets recognise a key."""
REFRESH_SECONDS = 2.0
"""A revoked key is refused after this time at the latest, by every API process."""
MIN_INTERVAL_SECONDS = 0.2
"""Between two queries, however many unknown keys arrive."""
USE_NOTED_SECONDS = 60.0


_SHOWN = [KEYS.c[name] for name in KeyInfo.model_fields]


async def add_key(connection: AsyncConnection, name: str, scope: KeyScope) -> NewKey:
    key = PREFIX + secrets.token_urlsafe(32)
    added = insert(KEYS).values(name=storable(name), scope=scope, digest=_digest(key)).returning(*_SHOWN)
    row = (await connection.execute(added)).mappings().one()
    return NewKey(**row, key=key)


async def list_keys(connection: AsyncConnection) -> KeyList:
    """Revoked keys too, newest first."""
    rows = (await connection.execute(select(*_SHOWN).order_by(KEYS.c.created_at.desc(), KEYS.c.id))).all()
    return KeyList(keys=[KeyInfo.model_validate(row) for row in rows], total=len(rows))


async def revoke_key(connection: AsyncConnection, key_id: UUID) -> None:
    """Revoking again changes nothing. Raises `NotFoundError`."""
    revoked = (
        update(KEYS)
        .where(KEYS.c.id == key_id)
        .values(revoked_at=func.coalesce(KEYS.c.revoked_at, func.now()))
        .returning(KEYS.c.id)
    )
    if await connection.scalar(revoked) is None:
        raise NotFoundError(f"Key not found: {key_id}")


class Keys:
    """The valid keys, read from the database when a request brings one and the copy is old.

    While the database is unavailable, the keys of the last copy stay valid, and others raise
    `DatabaseUnavailable`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._valid: dict[bytes, tuple[UUID, KeyScope]] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._noted_at: dict[UUID, float] = {}

    async def scope_of(self, key: str | None) -> KeyScope | None:
        """None for anything that is no valid key."""
        if not key or not key.startswith(PREFIX):
            return None
        digest = _digest(key)
        fresh_at = time.monotonic() - (REFRESH_SECONDS if digest in self._valid else 0.0)
        try:
            if self._read_at < fresh_at:
                await self._read_since(fresh_at)
        except DatabaseUnavailable:
            if digest not in self._valid:
                raise
            self._read_at = time.monotonic()
        found = self._valid.get(digest)
        if found is None:
            return None
        await self._note_use(found[0])
        return found[1]

    async def _note_use(self, key_id: UUID) -> None:
        now = time.monotonic()
        if now - self._noted_at.get(key_id, float("-inf")) > USE_NOTED_SECONDS:
            self._noted_at[key_id] = now
            with suppress(DatabaseUnavailable):
                async with self._database.transaction() as connection:
                    used = update(KEYS).where(KEYS.c.id == key_id).values(used_at=func.now())
                    await connection.execute(used)

    async def _read_since(self, fresh_at: float) -> None:
        """Requests that wait at the same time share one query."""
        async with self._reading:
            if self._read_at >= fresh_at:
                return
            await asyncio.sleep(self._read_at + MIN_INTERVAL_SECONDS - time.monotonic())
            await self._read()

    async def _read(self) -> None:
        read_at = time.monotonic()
        async with self._database.transaction() as connection:
            valid = select(KEYS.c.digest, KEYS.c.id, KEYS.c.scope).where(KEYS.c.revoked_at.is_(None))
            rows = (await connection.execute(valid)).all()
        self._valid = {row.digest: (row.id, KeyScope(row.scope)) for row in rows}
        self._read_at = read_at


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "replace")).digest()
