import importlib
import re

from benchmarks.__main__ import PARTS

from tests.support.documentation import PAGES, ROOT, page, sections

BENCHMARKS = {path.stem for path in ROOT.glob("benchmarks/*.py") if "__main__" in path.read_text()}


def test_pages_name_benchmarks_that_exist():
    for path in PAGES:
        named = re.findall(r"\bbenchmarks[./](\w+)", path.read_text(encoding="utf-8"))
        assert set(named) <= BENCHMARKS, path.name


def test_benchmarks_import_nothing_from_tests():
    for path in ROOT.glob("benchmarks/*.py"):
        assert not re.search(r"^\s*(?:from|import) tests\b", path.read_text(), re.MULTILINE), path.name


def test_the_readme_and_the_page_on_performance_name_every_benchmark():
    named = re.findall(r"\bbenchmarks\.(\w+)", page("README.md") + page("docs/performance.md"))
    assert {*named, *PARTS} >= BENCHMARKS - {"__main__"}


def test_the_page_on_performance_describes_every_part_of_the_table():
    described = [name for section in sections(page("docs/performance.md"), 2) for name in section.names]
    assert described == list(PARTS)


def test_parts_need_nothing_that_make_setup_does_not_install():
    for name in PARTS:
        importlib.import_module(f"benchmarks.{name}")
