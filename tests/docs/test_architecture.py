"""The pages about the code name what is there."""

import re
import tomllib

import pytest

from tests.support.documentation import PAGES, ROOT, code_of, page, sections

PACKAGE = ROOT / "src" / "crawlscope"
ARCHITECTURE = {section.title: section for section in sections(page("docs/architecture.md"), level=2)}
OPERATIONS = {section.title: section for section in sections(page("docs/operations.md"), level=2)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_modules_that_pages_name_exist(path):
    modules = [
        name for name in code_of(path.read_text(encoding="utf-8")) if re.fullmatch(r"[\w/]+\.py", name)
    ]
    for module in modules:
        folder = ROOT if module.startswith(("tests/", "benchmarks/")) else PACKAGE
        assert (folder / module).is_file() or list(PACKAGE.rglob(module)), module


def test_the_folders_are_listed_in_the_order_of_the_layers():
    listed = [name.rstrip("/") for name in ARCHITECTURE["Where things live"].first_names("folder")]
    [layers] = [
        contract["layers"]
        for contract in tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers" and len(contract["layers"]) > 10
    ]
    assert listed == [
        name for layer in layers for name in re.findall(r"\w+", layer.replace("crawlscope.", ""))
    ]
    assert set(listed) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_events_for_alerts_are_logged():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    events = OPERATIONS["Monitoring"].first_names("event")
    assert events
    assert [event for event in events if f'"{event}"' not in sources] == []
