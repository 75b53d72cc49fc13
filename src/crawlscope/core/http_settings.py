"""Settings that name an HTTP server: its address and its key, checked before anything is sent."""

import httpx2

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import ENV_PREFIX, is_header_safe


def server_url(setting: str, url: str) -> httpx2.URL:
    """Raises `SettingsError` that names the `setting`, such as `EMBEDDER_URL`."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingsError(f"{ENV_PREFIX}{setting}: must be an http:// or https:// address.")
    return parsed


def header_safe_key(setting: str, api_key: str | None) -> str | None:
    """Raises `SettingsError` that names the `setting`, and never the key."""
    if api_key and not is_header_safe(api_key):
        raise SettingsError(f"{ENV_PREFIX}{setting}: holds characters that no HTTP header can carry.")
    return api_key
