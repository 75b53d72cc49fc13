"""Files of other projects are unmodified releases, with their licences."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from crawlscope.api.dashboard.rendering import STATIC

FOLDERS = [STATIC / "vendor", Path(__file__).parent / "vendor"]


@pytest.mark.parametrize("folder", FOLDERS, ids=["served", "of the tests"])
def test_each_file_is_the_release_that_the_manifest_names(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    licences = {each["licence_file"] for each in manifest.values()}
    assert {each.name for each in folder.iterdir()} == {*manifest, *licences, "manifest.json"}
    for name, each in manifest.items():
        assert sha256((folder / name).read_bytes()).hexdigest() == each["sha256"], name
        assert each["package"]
        assert each["version"]
