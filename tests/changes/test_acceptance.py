"""Notifications of a watcher, through to the database."""

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from crawlscope.changes.acceptance import AcceptedChange, Rescraping, accept_change
from crawlscope.core.errors import UsageError
from crawlscope.core.vocabulary import Engine
from crawlscope.database.engine import Database
from crawlscope.models import ChangeEvent

HERE = Rescraping(Engine.BUILTIN, allow_private=True)
URL = "https://a.example/"


async def take(database: Database, **fields: Any) -> AcceptedChange:
    body = json.dumps({"watch_url": URL, **fields}).encode()
    return await accept_change(database, body, datetime.now(UTC), HERE)


async def changes(database: Database) -> list[Any]:
    async with database.transaction() as connection:
        rows = await connection.execute(select(*ChangeEvent.__table__.columns))
        return list(rows)


async def test_odd_texts_are_kept_as_far_as_the_database_can_hold_them(database: Database) -> None:
    cannot_be_compressed = "".join(map(chr, Random(1).choices(range(0x4E00, 0x9FFF), k=2_000)))
    odd = {"note": "see \\u0000", "nul": "\x00", "cut": "\ud83d", "number": float("nan")}
    taken = await take(database, watch_id=cannot_be_compressed, diff="\x00\\u0000\ud83d", **odd)
    assert taken.status == "queued"
    [change] = await changes(database)
    assert change.watch_id == cannot_be_compressed[:255]
    assert change.diff_summary == "�\\u0000�"
    assert change.metadata == {**odd, "nul": "�", "cut": "�", "number": None}


async def test_a_page_whose_url_is_too_long_is_refused_and_no_other_fetched(database: Database) -> None:
    with pytest.raises(UsageError, match="longer than 2048 characters"):
        await take(database, watch_url=URL + "x" * 2_048)
    assert await changes(database) == []
