"""The commands on keys of programs."""

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer
from pydantic import BaseModel

from crawlscope.cli.common import Json, show, with_service

if TYPE_CHECKING:
    from rich.table import Table

    from crawlscope.api.keys.schemas import KeyInfo

app = typer.Typer(help="Manage the keys of programs that use the service.", no_args_is_help=True)

KeyId = Annotated[UUID, typer.Argument(metavar="KEY_ID")]


class KeyRevoked(BaseModel):
    key_id: UUID


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The program or person that gets the key.")],
    scope: Annotated[
        Literal["receive", "read", "operate"],
        typer.Option(help="Deliver pages; read and search; or do all but manage keys."),
    ] = "receive",
    as_json: Json = False,
) -> None:
    """Make a key and print it. It is shown only this time."""
    if not 0 < len(name) <= 100:
        raise typer.BadParameter("a name has 1 to 100 characters", param_hint="NAME")
    made = with_service(lambda stack: stack.client.add_key(name, scope))
    show(made, as_json, lambda: made.key)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List all keys, newest first."""
    found = with_service(lambda stack: stack.client.keys())
    show(found, as_json, lambda: _table(found.keys) if found.keys else "no keys")


@app.command()
def revoke(key_id: KeyId, as_json: Json = False) -> None:
    """Revoke a key. Requests with it are refused within two seconds."""
    with_service(lambda stack: stack.client.revoke_key(key_id))
    show(KeyRevoked(key_id=key_id), as_json, lambda: f"Key {key_id} is revoked.")


def _table(keys: "list[KeyInfo]") -> "Table":
    from rich.table import Column, Table
    from rich.text import Text

    from crawlscope.api.rendering.words import plain

    table = Table(
        Column("id", no_wrap=True, min_width=36),
        *(Column(name, overflow="fold") for name in ("name", "scope", "created", "used", "revoked")),
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for key in keys:
        times = (
            f"{at:%Y-%m-%d %H:%M}" if at else "–" for at in (key.created_at, key.used_at, key.revoked_at)
        )
        table.add_row(str(key.id), Text(plain(key.name)), key.scope, *times)
    return table
