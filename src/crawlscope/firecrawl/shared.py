"""One client for everything in a process that asks Firecrawl."""

import asyncio

from crawlscope.core.errors import SettingsError
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import Settings
from crawlscope.firecrawl.client import FirecrawlClient


def firecrawl_client(settings: Settings) -> FirecrawlClient:
    """Raises `SettingsError` where no Firecrawl is set. Reads the certificates: 0.1 to 0.5 s."""
    if settings.firecrawl_url is None:
        raise SettingsError("no Firecrawl is known: set CRAWLSCOPE_FIRECRAWL_URL to its address")
    key = settings.firecrawl_api_key
    return FirecrawlClient(
        settings.firecrawl_url, key.get_secret_value() if key else None, hidden=[api_secret(settings)]
    )


class SharedFirecrawl:
    """Opened by the first who asks, in a thread, so that nobody else waits."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._client: FirecrawlClient | None = None

    async def client(self) -> FirecrawlClient:
        """Raises `SettingsError` where no Firecrawl is set, or its settings cannot work."""
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(firecrawl_client, self._settings)
            return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
