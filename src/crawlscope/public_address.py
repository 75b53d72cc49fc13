"""Where others reach this service."""

from urllib.parse import urlsplit

from crawlscope import service_file
from crawlscope.errors import SettingsError
from crawlscope.settings import Settings


def public_address(settings: Settings) -> str:
    """Without a slash at its end. Raises `SettingsError` for a public address that is none."""
    if settings.public_url:
        if urlsplit(settings.public_url).scheme not in ("http", "https"):
            raise SettingsError("CRAWLSCOPE_PUBLIC_URL: must be an http:// or https:// address")
        return settings.public_url.rstrip("/")
    running = service_file.read(settings.data_dir)
    return running.url.rstrip("/") if running else f"http://{settings.host}:{settings.port}"
