"""Decides whether this process exports over OTLP. Without that, nothing of OpenTelemetry's SDK is loaded."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.timing.telemetry import meters, traces

PROTOCOL = "http/protobuf"


@asynccontextmanager
async def exported(settings: Settings, kind: str) -> AsyncIterator[None]:
    """Within the block the counts and spans of the process go to the endpoint of the settings, if they name
    one. Raises `SettingsError` where the SDK is missing.
    """
    if settings.otlp_endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: must be {PROTOCOL}, usually on port 4318, not {protocol}"
        )
    try:
        otlp = await asyncio.to_thread(import_module, "crawlscope.timing.telemetry.otlp")
    except ImportError:
        raise SettingsError(
            f"{ENV_PREFIX}OTLP_ENDPOINT: needs OpenTelemetry's SDK: pip install 'crawlscope[otel]'"
        ) from None
    exporter = otlp.OtlpExporter(settings.otlp_endpoint, kind)
    try:
        with meters.use(exporter), traces.use(exporter):
            yield
    finally:
        await asyncio.to_thread(exporter.stop)
