"""Where others reach this service."""

from crawlscope.core import service_file
from crawlscope.core.settings import Settings


def public_address(settings: Settings) -> str:
    """Without a slash at its end."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    running = service_file.read(settings.data_dir)
    return running.url.rstrip("/") if running else f"http://{settings.host}:{settings.port}"
