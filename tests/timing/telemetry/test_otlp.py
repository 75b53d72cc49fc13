"""The export over OTLP, to a real receiver and to receivers that do not work."""

import subprocess
import sys
from pathlib import Path

import pytest

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.telemetry import conventions, meters, traces
from crawlscope.timing.telemetry.exported import exported
from tests.support.fakes.loopback import free_port
from tests.support.fakes.otlp_receiver import OtlpReceiver, attributes
from tests.support.producing import deliver_pages, index_pages

NOTHING_LOADED = """
import asyncio, sys
from crawlscope.core.settings import Settings
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.telemetry.exported import exported

async def work():
    async with exported(Settings(_env_file=None), "api"):
        with scope(collect=print), TimingContext("worker", "index_document"):
            pass

asyncio.run(work())
print(*[name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf", "requests"))])
"""


def settings(endpoint: str | None, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, otlp_endpoint=endpoint)


async def test_pages_do_not_wait_for_a_receiver_that_does_not_answer(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """If they did, this test would not end: the receiver answers when the pages are done."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    with OtlpReceiver() as receiver:
        receiver.answers.clear()
        async with exported(settings(receiver.url, tmp_path), "index_worker"):
            with traces.request(None):
                await deliver_pages(database, "crawl-1", *[f"https://a.example/{n}" for n in range(10)])
                assert await index_pages(database, "crawl-1") == 10
                assert receiver.asked.wait(60)
            assert receiver.traces == []
            receiver.answers.set()
        assert 0 < len(receiver.spans()) < 60  # what the queue could not hold was dropped


async def test_a_receiver_that_is_down_is_logged_once_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    url = f"http://user:pass-word@127.0.0.1:{free_port()}"
    async with exported(settings(url, tmp_path), "api"):
        for _ in range(2):
            with traces.request(None), scope(collect=lambda _: None), TimingContext("webhook", "receive"):
                pass
    said = "".join(capfd.readouterr())
    assert said.count("otlp_export_failed") <= 2  # one per signal
    assert "otlp_export_failed" in said
    assert "pass-word" not in said


async def test_counts_and_seconds_arrive_with_their_units(tmp_path: Path):
    with OtlpReceiver() as receiver:
        async with exported(settings(receiver.url, tmp_path), "api"):
            meters.observe(conventions.REQUESTS, 0.03, labels=("GET", "/api/stats", "200"))
            meters.count(conventions.REFUSALS, "too_large", amount=2)
        [request] = receiver.points("http.server.request.duration")
        [refused] = receiver.points("crawlscope.delivery.refused")
    assert attributes(request) == {
        "http.request.method": "GET",
        "http.route": "/api/stats",
        "http.response.status_code": 200,
    }
    assert (request.sum, request.count) == (0.03, 1)
    assert tuple(request.explicit_bounds) == conventions.REQUEST_SECONDS
    assert refused.as_int == 2


async def test_the_sampler_of_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with OtlpReceiver() as receiver:
        async with exported(settings(receiver.url, tmp_path), "api"):
            with traces.request(None), scope(collect=lambda _: None), TimingContext("webhook", "receive"):
                pass
        assert receiver.spans() == []


async def test_a_missing_sdk_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "crawlscope.timing.telemetry.otlp", None)
    with pytest.raises(SettingsError, match=r"pip install 'crawlscope\[otel\]'"):
        async with exported(settings("http://127.0.0.1:4318", tmp_path), "api"):
            pass


async def test_another_protocol_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf"):
        async with exported(settings("http://127.0.0.1:4317", tmp_path), "api"):
            pass


def test_the_standard_variable_names_the_receiver(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert Settings(_env_file=None).otlp_endpoint == "http://collector:4318"
    monkeypatch.setenv("CRAWLSCOPE_OTLP_ENDPOINT", "http://other:4318")
    assert Settings(_env_file=None).otlp_endpoint == "http://other:4318"


def test_a_process_that_exports_nothing_loads_nothing_of_opentelemetry():
    loaded = subprocess.check_output([sys.executable, "-c", NOTHING_LOADED], text=True)
    assert loaded.splitlines()[-1] == ""
