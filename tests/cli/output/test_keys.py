"""Keys on a terminal: a name is text, whatever is in it."""

from datetime import UTC, datetime
from uuid import uuid4

from rich.console import Console

from crawlscope.api.keys.schemas import KeyInfo, KeyScope
from crawlscope.cli.keys import _table


def test_a_name_is_shown_as_it_is_written():
    times = {"created_at": datetime.now(UTC), "used_at": None, "revoked_at": None}
    key = KeyInfo(id=uuid4(), name="[/x] [red]a\x1b[2J", scope=KeyScope.READ, **times)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(_table([key]))
    assert "[/x] [red]a[2J" in shown.get()
    assert "\x1b" not in shown.get()
