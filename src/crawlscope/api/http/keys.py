"""Keys of programs over HTTP. Only the API secret, or a browser that has signed in with it, may use this."""

from uuid import UUID

from fastapi import APIRouter

from crawlscope.api.http.access import KEYS_PATH
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.api.keys.registry import add_key, list_keys, revoke_key
from crawlscope.api.keys.schemas import KeyList, KeyRequest, NewKey

router = APIRouter(prefix=KEYS_PATH, tags=["keys"])


@router.get("", summary="List keys")
async def get_keys(parts: ServiceParts) -> KeyList:
    """All keys, newest first, without the keys themselves."""
    return await parts.database.run(list_keys)


@router.post("", summary="Make a key", status_code=201)
async def make_key(asked: KeyRequest, parts: ServiceParts) -> NewKey:
    """Makes a key. No other answer contains it."""
    return await parts.database.run(lambda connection: add_key(connection, asked.name, asked.scope))


@router.delete("/{key_id}", summary="Revoke a key", status_code=204)
async def revoke(key_id: UUID, parts: ServiceParts) -> None:
    """Revokes a key: it is refused within two seconds."""
    await parts.database.run(lambda connection: revoke_key(connection, key_id))
