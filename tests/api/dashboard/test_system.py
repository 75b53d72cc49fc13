"""The settings are shown without secrets."""

from pathlib import Path

from crawlscope.api.dashboard.system import shown_settings
from crawlscope.core.settings import Settings


def test_no_secret_is_shown(tmp_path: Path):
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        api_secret="hidden-1",
        database_url="postgresql://user:hidden-2@host/name",
        firecrawl_url="https://user:hidden-3@firecrawl.example/v2?key=hidden-4",
        notify_url="https://example.com/hidden-5",
    )
    shown = {name: (text, is_own) for name, text, is_own in shown_settings(settings)}
    assert "hidden-" not in str(shown)
    assert shown["CRAWLSCOPE_FIRECRAWL_URL"] == ("https://firecrawl.example/v2", True)
    assert shown["CRAWLSCOPE_API_SECRET"] == ("set, not shown", True)
    assert shown["CRAWLSCOPE_PORT"] == ("8108", False)
