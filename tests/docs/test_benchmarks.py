import re

from tests.support.documentation import PAGES, ROOT, page

BENCHMARKS = {path.stem for path in ROOT.glob("benchmarks/*.py") if "__main__" in path.read_text()}


def test_pages_name_benchmarks_that_exist():
    for path in PAGES:
        named = re.findall(r"\bbenchmarks[./](\w+)", path.read_text(encoding="utf-8"))
        assert set(named) <= BENCHMARKS, path.name


def test_benchmarks_import_nothing_from_tests():
    for path in ROOT.glob("benchmarks/*.py"):
        assert not re.search(r"^\s*(?:from|import) tests\b", path.read_text(), re.MULTILINE), path.name


def test_the_readme_names_every_benchmark():
    named = re.findall(r"\bbenchmarks\.(\w+)", page("README.md"))
    assert set(named) >= BENCHMARKS - {"pipeline"}, "`make benchmark` runs the pipeline's"
