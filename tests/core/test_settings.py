"""Values that cannot work are refused in one line which names the variable and never repeats the value."""

from pathlib import Path

import pytest

from crawlscope.core.errors import SettingsError
from crawlscope.core.secrets import SECRET_FILE, TOKEN_FILE, api_secret, local_token
from crawlscope.core.settings import Settings, load_settings
from crawlscope.database.engine import sqlalchemy_url

ADDRESSES = [
    name for name in Settings.model_fields if name.endswith("_url") and not name.startswith("database")
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    variable = f"CRAWLSCOPE_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: ") as raised:
        load_settings()
    assert value not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ": must " in str(raised.value)


@pytest.mark.parametrize("value", ["geheimö", "hid den", "hid\nden", "hid\x7fden"])
def test_an_api_secret_that_no_header_can_carry(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    refused(monkeypatch, "api_secret", value)


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "value", ["garbage", "here.example:8108", "ftp://here.example", "/here", "http://[::1"]
)
def test_addresses_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    refused(monkeypatch, name, value)


@pytest.mark.parametrize("name", ["host", "receive_token", "firecrawl_url", "data_dir"])
def test_bytes_that_are_no_text(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    refused(monkeypatch, name, "http://x/\udcff")


def test_a_settings_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"CRAWLSCOPE_HOST=\xe4\n")
    with pytest.raises(SettingsError, match=r"\.env.* UTF-8"):
        load_settings()


@pytest.mark.parametrize(
    "rest",
    [
        "u:p@ss:w0rd-hidden@db.example/crawls",
        "u:hidden@db.example:99999/crawls",
        "u:hidden@db.example:0/crawls",
        "u:hidden@db.example/crawls?hidden=1",
    ],
)
def test_a_database_url_that_cannot_work(rest: str) -> None:
    """A password with `@`, `:` or `/` in it is read as something else unless these are encoded."""
    with pytest.raises(SettingsError, match=r"^CRAWLSCOPE_DATABASE_URL: ") as raised:
        sqlalchemy_url(f"postgresql://{rest}")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("url", ["hidden", "hidden://u@db.example/crawls", "postgresql:hidden"])
def test_a_database_url_of_another_kind(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^CRAWLSCOPE_DATABASE_URL: .*postgresql://") as raised:
        sqlalchemy_url(url)
    assert "hidden" not in str(raised.value)


def test_a_database_url_as_hosts_of_databases_give_it() -> None:
    url = sqlalchemy_url("postgres://u:p%40ss@db.example:6432/crawls?sslmode=require&host=/run/postgresql")
    assert (url.drivername, url.password, url.port) == ("postgresql+asyncpg", "p@ss", 6432)
    assert url.query == {"sslmode": "require", "host": "/run/postgresql"}


@pytest.mark.parametrize("content", [b"two words", "geheimö".encode(), b"\xff", b"two\nlines"])
def test_a_kept_secret_that_no_header_can_carry(tmp_path: Path, content: bytes) -> None:
    settings = load_settings(data_dir=tmp_path)
    for name, read in ((SECRET_FILE, api_secret), (TOKEN_FILE, local_token)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match=f"{name} .*remove it"):
            read(settings)


@pytest.mark.parametrize(
    ("embedder", "processors", "workers"),
    [("local", 2, 1), ("local", 8, 2), ("fastembed", 4, 1), ("tei", 8, 8), ("openai", 1, 1)],
)
def test_workers_that_embed_are_fewer(
    monkeypatch: pytest.MonkeyPatch, embedder: str, processors: int, workers: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    monkeypatch.setenv("CRAWLSCOPE_EMBEDDER", embedder)
    assert load_settings().workers == workers
    monkeypatch.setenv("CRAWLSCOPE_WORKERS", "3")
    assert load_settings().workers == 3
