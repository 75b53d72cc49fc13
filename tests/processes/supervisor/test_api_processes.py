"""`serve` with several API processes keeps them and the index, and ends as one process would."""

import asyncio
from pathlib import Path

import pytest

from crawlscope.core.errors import GaveUp
from crawlscope.core.settings import Settings
from crawlscope.processes.supervisor import api_processes
from tests.processes.supervisor.support import Diary, command
from tests.support.polling import eventually


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diary:
    monkeypatch.setenv("CHILD_FOLDER", str(tmp_path))
    monkeypatch.setattr(api_processes, "CRAWLSCOPE", command("work"))
    monkeypatch.setattr(api_processes, "SHARED_API", command("work", "api"))
    return Diary(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, port=0, api_processes=2)


async def test_the_index_stops_when_no_request_needs_it_any_more(diary: Diary, settings: Settings) -> None:
    stopping = asyncio.Event()
    serving = asyncio.create_task(api_processes.serve_several(settings, stopping, keeps_index=True))
    await eventually(lambda: sorted(diary.events()) == ["start api", "start api", "start index"])
    stopping.set()
    await serving
    assert diary.events()[3:] == ["stop api", "stop api", "stop index"]


async def test_it_ends_with_the_exit_code_of_one_process(
    diary: Diary, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_processes, "SHARED_API", command("fail", "2"))
    with pytest.raises(GaveUp, match=r"^api(-2)?: something is wrong here$") as gave_up:
        await api_processes.serve_several(settings, asyncio.Event(), keeps_index=False)
    assert gave_up.value.exit_code == 2
