"""`crawlscope.connect`: the service of this machine, or the one at a URL, for a program."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import structlog

from crawlscope.api.client import ServiceClient
from crawlscope.api.stack import Stack
from crawlscope.core import service_file
from crawlscope.core.errors import ServiceUnavailable, SettingsError, UsageError
from crawlscope.core.settings import (
    Settings,
    is_header_safe,
    is_web_address,
    keeps_secrets,
    load_settings,
    without_credentials,
)

log = structlog.get_logger(__name__)


@asynccontextmanager
async def connect(
    url: str | None = None,
    secret: str | None = None,
    *,
    data_dir: Path | str | None = None,
    start: bool = False,
) -> AsyncIterator[ServiceClient]:
    """Connects to a running service for as long as the block lasts.

    With `url`, to the service there. `secret` is its API secret or a key, by default the setting
    `CRAWLSCOPE_API_SECRET`. Without `url`, to the service of this machine and of `data_dir`, by default the
    data folder of the settings. `start` starts one if none runs; it stops with the block. A secret that is
    sent to another machine without TLS is logged as a warning.

    Raises `ServiceUnavailable` if no service answers, `SettingsError` or `UsageError` if an argument cannot
    work.
    """
    settings = load_settings() if data_dir is None else load_settings(data_dir=Path(data_dir))
    if url is not None:
        async with aclosing(client_at(url, secret, settings)) as client:
            if not keeps_secrets(url):
                log.warning("secret_exposed", url=without_credentials(url))
            await client.require_ready()
            yield client
        return
    if secret is not None:
        raise UsageError("a secret is for the service at a URL: give the URL, too")
    if not start and service_file.read(settings.data_dir) is None:
        raise ServiceUnavailable(
            f"no service runs for the data folder {settings.data_dir}: start it with `crawlscope up`, "
            "give its URL, or use connect(start=True)"
        )
    async with Stack(settings) as stack:
        await stack.bring_up()
        yield stack.client


def client_at(url: str, given: str | None, settings: Settings) -> ServiceClient:
    """`given` is the API secret or a key; by default the secret of the settings. The service may not run."""
    if not is_web_address(url):
        raise UsageError("the URL of a service must be a full one, such as https://crawlscope.example.com")
    secret = given or (settings.api_secret.get_secret_value() if settings.api_secret else None)
    if secret is None:
        raise SettingsError("a service at a URL needs its API secret or a key: set CRAWLSCOPE_API_SECRET")
    if not is_header_safe(secret):
        raise UsageError("the API secret must be ASCII without spaces, because it is sent in a header")
    return ServiceClient.at(url, secret)
