"""The address is there as long as its service runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from crawlscope.core import service_file
from crawlscope.core.service_file import RunningService

URL = "http://127.0.0.1:8108"
ANNOUNCE = """
import sys
from pathlib import Path
from crawlscope.core import service_file
service_file.write(Path(sys.argv[1]), "http://127.0.0.1:8108")
"""


def test_what_is_written_is_read_and_closed_to_others(tmp_path: Path) -> None:
    service_file.write(tmp_path, URL)
    assert service_file.read(tmp_path) == RunningService(URL, os.getpid())
    assert (tmp_path / "service.json").stat().st_mode & 0o777 == 0o600
    service_file.remove(tmp_path)
    assert service_file.read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    service_file.remove(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"url": "x"}', '{"url": "x", "pid": "y", "started": 1}']
)
def test_a_torn_file_is_no_service(tmp_path: Path, text: str) -> None:
    (tmp_path / "service.json").write_text(text)
    assert service_file.read(tmp_path) is None


def test_a_dead_process_is_no_service(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ANNOUNCE, str(tmp_path)], check=True)
    assert (tmp_path / "service.json").exists()
    assert service_file.read(tmp_path) is None


def test_another_process_with_the_same_number_is_no_service(tmp_path: Path) -> None:
    service_file.write(tmp_path, URL)
    entry = json.loads((tmp_path / "service.json").read_text())
    (tmp_path / "service.json").write_text(json.dumps(entry | {"started": entry["started"] - 60}))
    assert service_file.read(tmp_path) is None


def test_only_its_own_announcement_is_taken_back(tmp_path: Path) -> None:
    other = psutil.Process().parent()
    assert other is not None
    entry = {"url": URL, "pid": other.pid, "started": service_file._started(other)}
    (tmp_path / "service.json").write_text(json.dumps(entry))
    service_file.remove(tmp_path)
    assert service_file.read(tmp_path) == RunningService(URL, other.pid)
