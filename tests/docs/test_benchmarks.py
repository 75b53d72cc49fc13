import re

from tests.docs.reading import PAGES, ROOT, page

BENCHMARKS = {path.stem for path in ROOT.glob("benchmarks/*.py")} - {"__init__"}


def test_pages_name_benchmarks_that_exist():
    for path in PAGES:
        named = re.findall(r"\bbenchmarks[./](\w+)", path.read_text(encoding="utf-8"))
        assert set(named) <= BENCHMARKS, path.name


def test_the_readme_names_every_benchmark():
    named = re.findall(r"\bbenchmarks\.(\w+)", page("README.md"))
    assert set(named) >= BENCHMARKS - {"pipeline"}, "`make benchmark` runs the pipeline's"
