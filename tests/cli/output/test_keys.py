"""Keys on a terminal: a name is text, whatever is in it, and nothing is cut off."""

from datetime import UTC, datetime
from uuid import uuid4

from rich.console import Console

from crawlscope.api.keys.schemas import KeyInfo, KeyScope
from crawlscope.cli.keys import _table


def shown(name: str, columns: int, at: datetime | None = None) -> tuple[KeyInfo, str]:
    key = KeyInfo(
        id=uuid4(), name=name, scope=KeyScope.READ, created_at=datetime.now(UTC), used_at=at, revoked_at=at
    )
    console = Console(width=columns)
    with console.capture() as captured:
        console.print(_table([key]))
    return key, captured.get()


def test_a_name_is_shown_as_it_is_written():
    _, text = shown("[/x] [red]a\x1b[2J", 200)
    assert "[/x] [red]a[2J" in text
    assert "\x1b" not in text


def test_an_id_is_whole_in_80_columns_because_revoke_needs_it():
    key, text = shown("a program", 80, datetime.now(UTC))
    assert str(key.id) in text


def test_nothing_is_cut_off_in_80_columns():
    _, text = shown("prometheus-of-the-cluster", 80, datetime.now(UTC))
    assert "…" not in text
