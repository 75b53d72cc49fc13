import asyncio
import re
import sys
from pathlib import Path

import pytest

from crawlscope.cli import demo_site
from crawlscope.core.errors import CrawlscopeError
from crawlscope.crawler.reading.markdown import to_markdown
from tests.crawler.harness import crawl


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert demo_site.build(folder) == len(list(folder.glob("*.html"))) >= 100
    return folder


def test_its_links_lead_to_its_own_pages_or_to_the_python_documentation(site: Path) -> None:
    for page in site.glob("*.html"):
        for href in re.findall(r'href="([^"]*)"', page.read_text(encoding="utf-8")):
            target = href.partition("#")[0]
            assert not target or target.startswith("https://docs.python.org/") or (site / target).is_file(), (
                href
            )


def test_it_reveals_nothing_about_the_machine(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "file:" not in re.findall(r'href="(\w+:)', text)
        assert sys.base_prefix not in text
        assert str(Path.home()) not in text
        assert not re.search(r"at(&nbsp;| )0x[0-9a-f]{6}", text)


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    modules = ["argparse", "difflib", "functools", "keyword", "os", "queue", "string"]
    for folder in ("a", "b"):
        assert demo_site.build(tmp_path / folder, modules) == len(modules) + 1
    for page in (tmp_path / "a").iterdir():
        assert page.read_bytes() == (tmp_path / "b" / page.name).read_bytes()


@pytest.mark.parametrize("module", ["no_such_module", "unittest.__main__"])
def test_a_module_that_is_missing_or_ends_the_program_is_left_out(tmp_path: Path, module: str) -> None:
    assert demo_site.build(tmp_path, [module, "json"]) == 2
    assert module not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_its_pages_have_headings_and_text(site: Path) -> None:
    for page in site.glob("*.html"):
        text = to_markdown(page.read_bytes(), f"http://site/{page.name}").markdown
        assert text.startswith("# "), page.name
        assert len(text) > 500, page.name


def test_a_crawl_of_it_finds_every_page_and_nothing_broken(site: Path) -> None:
    with demo_site.serve(site) as url:
        crawled = asyncio.run(crawl(url))
    names = {path.strip("/") for path in crawled.pages}
    assert names == {page.name for page in site.glob("*.html")}
    assert {crawled.metadata(path)["statusCode"] for path in crawled.pages} == {200}


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "abc.html").mkdir()
    with pytest.raises(CrawlscopeError, match="could not be written"):
        demo_site.build(tmp_path / "sub")
