"""The settings of notifications, and their generated defaults."""

import stat
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from crawlscope.core.errors import SettingsError
from crawlscope.core.secrets import NOTIFY_SECRET_FILE, notify_secret
from crawlscope.core.settings import Settings, load_settings
from tests.support.fakes.notification_receiver import SECRET


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("notify_url", "hooks.example.net/in"),
        ("notify_url", "ftp://example.com/hooks"),
        ("notify_url", "http://"),
        ("notify_url", "http://[::1/hooks"),
        ("notify_url", "https://exa\u200bmple.com/hooks"),
        ("notify_url", "https://example.com/ho\x01oks"),
        ("notify_secret", "a-secret-of-no-form"),
        ("notify_secret", "whsec_c2hvcnQ="),
        ("notify_secret", "whsec_***"),
        ("notify_secret", "c2l4dGVlbiBieXRlcyBhbmQgc29tZSBtb3JlIQ=="),
    ],
)
def test_what_cannot_work_is_said_so_without_repeating_it(name: str, value: str) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(SettingsError, match=f"CRAWLSCOPE_{name.upper()}: ") as raised:
        load_settings(**given)
    assert value not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_secret_is_made_and_kept(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    made = notify_secret(settings)
    assert notify_secret(settings) == made
    Webhook(made)  # raises for what cannot sign
    kept = tmp_path / NOTIFY_SECRET_FILE
    assert kept.read_text() == made
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert load_settings(notify_secret=made).notify_secret is not None


def test_the_one_that_is_set_counts(tmp_path: Path) -> None:
    assert notify_secret(load_settings(data_dir=tmp_path, notify_secret=SECRET)) == SECRET
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_one_is_said_so(tmp_path: Path) -> None:
    (tmp_path / NOTIFY_SECRET_FILE).write_text("damaged")
    with pytest.raises(SettingsError, match="remove it"):
        notify_secret(Settings(data_dir=tmp_path))
