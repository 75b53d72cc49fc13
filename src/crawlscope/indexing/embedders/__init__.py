"""The embedders; `open_embedder` opens the one of the settings."""

import asyncio
import os

from pydantic import SecretStr

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import Settings
from crawlscope.indexing.embedders.port import Embedder

__all__ = ["open_embedder"]

# ONNX Runtime reads it when it is imported. Otherwise it sends data on models and machine to its makers, and
# keeps an identifier of the machine in the user's cache folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


async def open_embedder(settings: Settings, threads: int = 1) -> Embedder:
    """Opens the embedder of the settings; `threads` is for those that compute in this process.

    Imports only that one: each brings a runtime or a client, which takes 0.1 s and up to 20 MB.
    Raises `EmbedderUnavailable` if a server does not answer, `SettingsError` for settings that cannot work.
    """
    model = settings.embedder_model
    match settings.embedder:
        case "local":
            from crawlscope.indexing.embedders.local import open_local  # noqa: PLC0415

            return await asyncio.to_thread(open_local, model, threads)
        case "fastembed":
            from crawlscope.indexing.embedders.fastembed import (  # noqa: PLC0415
                DEFAULT_MODEL,
                FastembedEmbedder,
            )

            return await asyncio.to_thread(FastembedEmbedder, model or DEFAULT_MODEL, threads)
        case "tei":
            from crawlscope.indexing.embedders.tei import open_tei  # noqa: PLC0415

            return await open_tei(_required("url", settings.embedder_url), model, _key(settings))
        case "openai":
            from crawlscope.indexing.embedders.openai import open_openai  # noqa: PLC0415

            url = _required("url", settings.embedder_url)
            dimensions = settings.embedder_dimensions
            return await open_openai(url, _required("model", model), _key(settings), dimensions)


def _required(name: str, value: str | None) -> str:
    if not value:
        raise SettingsError(f"CRAWLSCOPE_EMBEDDER_{name.upper()}: needed by this CRAWLSCOPE_EMBEDDER.")
    return value


def _key(settings: Settings) -> str | None:
    key: SecretStr | None = settings.embedder_api_key
    return key.get_secret_value() if key else None
