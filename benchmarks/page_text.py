"""How much of real pages survives the way to Markdown, and how much of the site around them stays.

    python -m benchmarks.page_text FOLDER [--fetch] [--before REVISION] [--pages N] [--json FILE]

FOLDER holds unpacked Debian packages, one folder each; `--fetch` gets those that are missing with `apt-get
download` and `dpkg -x`. Readers of other projects are compared where they are installed: trafilatura,
resiliparse, markdownify, html2text. `--before` adds the reader of an earlier revision of this project.

Two measures. Every page is compared with what its documentation set names as content and as navigation, by
the selectors in `SETS`, written by hand for each set. And `page_facts.json` has strings of single pages,
chosen by eye: sentences, rows of tables and lines of code to be kept whole, and navigation to be dropped.
"""

import argparse
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import html_to_markdown
import turbohtml
from turbohtml import Element

from crawlscope.crawler.reading.markdown import to_markdown

Reader = Callable[[bytes], str]

FACTS = Path(__file__).parent / "page_facts.json"
URL = "http://site.test/docs/page.html"
_LINK = re.compile(
    r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:<[^>]*>|[^()\s]*(?:\([^()]*\))?[^()\s]*)(?: \"[^\"]*\")?\)"
)
_WORD = re.compile(r"\w+")
_ESCAPE = re.compile(r"\\([^\w\s])")
_MARKS = re.compile(r"`|\*\*?|~~")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|(?<=[。！？：；])")
_NEVER_TEXT = (
    "script, style, template, a.headerlink, a.anchor, button, noscript, .lineno, .linenos, .viewcode-link"
)
_BLOCKS = ["p", "li", "dd", "dt", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6", "caption", "figcaption"]
_NESTED = ", ".join([*_BLOCKS, "pre", "dl", "table"])
_CODE = "code: "
_MIN_SENTENCE = 20
_MAX_SENTENCES = 300


@dataclass(frozen=True)
class Set:
    package: str
    files: str
    content: str
    navigation: str = ""
    """Also of what is within the content. A list of contents that is most of its page is its text."""


_DOCBOOK = ".navheader, .navfooter, div.toc"
SETS = {
    "Python (Sphinx)": Set(
        "python3.11-doc", "**/html/**/*.html", "div.body", ".sphinxsidebar, .related, .menu, .footer"
    ),
    "Django (Sphinx)": Set(
        "python-django-doc",
        "**/html/**/*.html",
        "#yui-main",
        ".sphinxsidebar, .related, .nav, #sidebar, #global-nav, #ft",
    ),
    "Debian policy (Sphinx)": Set(
        "debian-policy", "**/policy.html/*.html", "div.body", ".sphinxsidebar, .related, .footer"
    ),
    "MkDocs": Set("mkdocs-doc", "**/html/**/*.html", "[role=main]", ".navbar, footer, .bs-sidebar, .modal"),
    "Rust book (mdBook)": Set(
        "rust-doc", "**/html/*book/**/*.html", "main", "#sidebar, #menu-bar, .nav-chapters"
    ),
    "Rust std (rustdoc)": Set(
        "rust-doc", "**/html/std/**/*.html", "#main-content", ".sidebar, .sub, .mobile-topbar"
    ),
    "OpenJDK (Javadoc)": Set("openjdk-17-doc", "**/api/**/*.html", "main", "header[role=banner], footer"),
    "Node.js": Set("nodejs-doc", "**/api/*.html", "#apicontent", "#column2, #gtoc, #toc, .header"),
    "PostgreSQL (DocBook)": Set("postgresql-doc-15", "**/html/*.html", "body", _DOCBOOK),
    "Installation guide (DocBook, 19 languages)": Set(
        "installation-guide-amd64", "**/*/ch*.html", "body", _DOCBOOK
    ),
    "Debian reference, ja (DocBook)": Set("debian-reference-ja", "**/docs/*.html", "body", _DOCBOOK),
    "Debian reference, zh (DocBook)": Set("debian-reference-zh-cn", "**/docs/*.html", "body", _DOCBOOK),
    "Debian handbook (Publican, 26 languages)": Set(
        "debian-handbook", "**/html/*-*/*.html", "body", "#banner, #title, .docnav, div.toc"
    ),
    "debmake (DocBook, 4 languages)": Set("debmake-doc", "**/html/*.html", "body", _DOCBOOK),
    "Git (AsciiDoc)": Set("git-doc", "**/git-doc/*.html", "#header, #content, #footnotes", "#toc, #footer"),
    "dplyr, R Markdown (pandoc)": Set("r-cran-dplyr", "**/doc/*.html", "body", "#TOC, .navbar"),
    "Exim": Set("exim4-doc-html", "**/spec_html/*.html", "#content", "#nav_flow, #footer, #toc"),
    "Postfix (manual pages)": Set("postfix-doc", "**/html/*.html", "body"),
    "SQLite": Set("sqlite3-doc", "**/*.html", "body", ".nosearch, .fancy_toc, .fancytoc"),
    "Eigen (Doxygen)": Set(
        "libeigen3-doc", "**/html/*.html", ".header, .contents", "#top, #nav-path, #side-nav, .summary"
    ),
    "Apache httpd": Set(
        "apache2-doc",
        "**/manual/*/*/*.html",
        "#page-content",
        "#page-header, #path, #footer, .bottomlang, .toplang, #quickview",
    ),
    "Octave (Texinfo)": Set(
        "octave-doc", "**/octave.html/*.html", "body", "div.header, .nav-panel, .Contents_element"
    ),
    "Qt (QDoc)": Set(
        "qtbase5-doc-html", "**/qt*/*.html", ".mainContent", ".navigationbar, .footer, .toc, .sidebar"
    ),
    "GLib (gtk-doc)": Set(
        "libglib2.0-doc", "**/html/**/*.html", "body", "table.navigation, .footer, div.toc"
    ),
    "Erlang": Set("erlang-doc", "**/doc/html/*.html", "#content", "#leftnav, .topbar, .footer"),
    "Boost (BoostBook)": Set(
        "libboost1.74-doc", "**/doc/html/boost/**/*.html", "body", ".spirit-nav, div.toc"
    ),
}


@dataclass(frozen=True)
class Page:
    name: str
    """Below the folder."""
    set: str
    content: bytes
    sentences: frozenset[str]
    navigation: frozenset[str]
    keep: Sequence[str] = ()
    drop: Sequence[str] = ()


@dataclass
class Score:
    """The score of one reader."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def share(self, kind: str) -> float | None:
        return self.counts[kind] / self.counts[f"{kind}_of"] if self.counts[f"{kind}_of"] else None


def main() -> None:
    options = _options()
    if options.fetch:
        _fetch(options.folder)
    pages = list(_pages(options.folder, options.pages, options.only))
    if not pages:
        sys.exit(f"No page in {options.folder}: add --fetch to get the packages.")
    scores = {name: _score(read, pages) for name, read in _readers().items()}
    if options.before:
        scores = {f"before ({options.before})": _score_revision(options.before, pages), **scores}
    _print(pages, scores)
    if options.json:
        options.json.write_text(json.dumps(_as_json(pages, scores), indent=2, ensure_ascii=False) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fetch", action="store_true", help="download missing packages")
    parser.add_argument("--before", help="also measure the reader of this revision")
    parser.add_argument("--pages", type=int, default=16, help="maximum number of a set, taken evenly (16)")
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS, metavar="SET")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    return parser.parse_args()


def _fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package in sorted({each.package for each in SETS.values()}):
        target = folder / package
        if target.exists():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as work:
            subprocess.run(["apt-get", "download", "-q", package], cwd=work, check=True)
            [archive] = Path(work).glob("*.deb")
            subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)


def _pages(folder: Path, limit: int, only: Sequence[str]) -> Iterator[Page]:
    facts = json.loads(FACTS.read_text())
    for name in only:
        kind = SETS[name]
        found = (folder / kind.package).glob(kind.files)
        files = sorted(file for file in found if file.is_file() and file.stat().st_size < 1_000_000)
        chosen = files[:: max(1, len(files) // limit)][:limit]
        chosen += [file for file in files if str(file.relative_to(folder)) in facts and file not in chosen]
        for file in chosen:
            yield _page(file, str(file.relative_to(folder)), name, facts)


def _page(file: Path, name: str, kind: str, facts: dict[str, Any]) -> Page:
    content = file.read_bytes()
    sentences, navigation = _truth(content, SETS[kind])
    fact = facts.get(name, {})
    return Page(name, kind, content, sentences, navigation, fact.get("keep", ()), fact.get("drop", ()))


def _truth(content: bytes, kind: Set) -> tuple[frozenset[str], frozenset[str]]:
    document = turbohtml.parse(content, detect_encoding=True)
    document.remove(_NEVER_TEXT)
    for line_break in list(document.iter_elements("br")):
        line_break.replace_with(turbohtml.Text("\n"))
    around = list(document.select(kind.navigation)) if kind.navigation else []
    listed = [{_words(link.text) for link in element.iter_elements("a")} for element in around]
    for element in around:
        element.decompose()
    parts = document.select(kind.content)
    sentences = [sentence for part in parts for sentence in _sentences(part)]
    text = " ".join(_words(part.text) for part in parts)
    navigation = {
        words
        for element, links in zip(around, listed, strict=True)
        if not (element.has_class("toc") and len(links) > len(sentences))
        for words in links
    }
    step = max(1, len(sentences) // _MAX_SENTENCES)
    return frozenset(sentences[::step]), frozenset(
        words for words in navigation if len(words) >= 8 and not words.isnumeric() and words not in text
    )


def _sentences(part: Element) -> Iterator[str]:
    for block in part.iter_elements([*_BLOCKS, "pre"]):
        if block.tag == "pre":
            texts: Iterable[str] = block.text.splitlines()
        elif block.select_one(_NESTED) is not None:
            continue
        else:
            texts = _SENTENCE_END.split(block.text)
        yield from (words for words in map(_words, texts) if len(words) >= _MIN_SENTENCE)


def _words(text: str) -> str:
    """Only letters and digits, so that Markdown's own characters neither help nor hurt."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).replace("_", " "))).lower()


def _readers() -> dict[str, Reader]:
    return {"crawlscope": lambda page: to_markdown(page, URL).markdown} | dict(_other_readers())


def _other_readers() -> Iterator[tuple[str, Reader]]:
    options = html_to_markdown.ConversionOptions(extract_metadata=False)
    yield "html-to-markdown", lambda page: html_to_markdown.convert(_text(page), options).content or ""
    yield "turbohtml, main_content", _turbohtml
    if trafilatura := _library("trafilatura"):
        common = {"output_format": "markdown", "include_links": True, "include_tables": True}
        yield "trafilatura", lambda page: trafilatura.extract(page, **common) or ""
        yield (
            "trafilatura, favor_recall",
            lambda page: trafilatura.extract(page, favor_recall=True, **common) or "",
        )
    if resiliparse := _library("resiliparse.extract.html2text"):
        yield (
            "resiliparse, main_content",
            lambda page: resiliparse.extract_plain_text(_text(page), main_content=True),
        )
    if markdownify := _library("markdownify"):
        yield "markdownify", lambda page: markdownify.markdownify(_text(page))
    if html2text := _library("html2text"):
        yield "html2text", lambda page: html2text.html2text(_text(page), bodywidth=0)


def _library(name: str) -> Any:
    found = importlib.util.find_spec(name.partition(".")[0]) is not None
    return importlib.import_module(name) if found else None


def _text(page: bytes) -> str:
    return page.decode("utf-8", "replace")


def _turbohtml(page: bytes) -> str:
    content = turbohtml.parse(page, detect_encoding=True).main_content()
    return content.to_markdown() if content is not None else ""


def _score(read: Reader, pages: Sequence[Page]) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    read(pages[0].content)
    for page in pages:
        began = time.process_time()
        try:
            markdown = read(page.content)
        except Exception:  # noqa: BLE001  # a reader that fails on a page is what is measured
            markdown = ""
            scores.setdefault("all", Score()).counts["errors"] += 1
        _count(scores, page, markdown, time.process_time() - began)
    return scores


_READ_WITH_REVISION = """
import json, sys, time
from pathlib import Path
try:
    from crawlscope.crawler.reading.markdown import to_markdown
except ImportError:  # revisions before the folder
    from crawlscope.crawler.markdown import to_markdown
to_markdown("<p>warm", "http://site.test/")
for line in sys.stdin:
    content = Path(json.loads(line)).read_bytes()
    began = time.process_time()
    text = to_markdown(content, %r).markdown
    print(json.dumps([text, time.process_time() - began]), flush=True)
"""


def _score_revision(revision: str, pages: Sequence[Page]) -> dict[str, Score]:
    git = ["git", "archive", revision, "src"]
    archive = subprocess.run(git, check=True, capture_output=True).stdout
    scores: dict[str, Score] = {}
    with tempfile.TemporaryDirectory() as work:
        with tarfile.open(fileobj=BytesIO(archive)) as source:
            source.extractall(work, filter="data")
        file = Path(work) / "page.html"
        with subprocess.Popen(
            [sys.executable, "-c", _READ_WITH_REVISION % URL],
            env=os.environ | {"PYTHONPATH": str(Path(work) / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for page in pages:
                file.write_bytes(page.content)
                process.stdin.write(json.dumps(str(file)) + "\n")
                process.stdin.flush()
                _count(scores, page, *json.loads(process.stdout.readline()))
    return scores


def _count(scores: dict[str, Score], page: Page, markdown: str, seconds: float) -> None:
    plain = _ESCAPE.sub(r"\1", _MARKS.sub("", _LINK.sub(r"\1", _LINK.sub(r"\1", markdown))))
    text, lines = _words(plain), {_words(line) for line in plain.splitlines()}
    counts = Counter(
        kept=sum(sentence in text for sentence in page.sentences),
        kept_of=len(page.sentences),
        dropped=sum(words not in text for words in page.navigation),
        dropped_of=len(page.navigation),
        facts_kept=sum(_holds(markdown, text, lines, fact) for fact in page.keep),
        facts_kept_of=len(page.keep),
        facts_dropped=sum(not _holds(markdown, text, lines, fact) for fact in page.drop),
        facts_dropped_of=len(page.drop),
        characters=len(markdown),
        pages=1,
    )
    for name in ("all", page.set):
        score = scores.setdefault(name, Score())
        score.counts.update(counts)
        score.seconds.append(seconds)


def _holds(markdown: str, text: str, lines: set[str], fact: str) -> bool:
    """A fact with bars is a row of a table, which is to be one line; code is to be the same to the letter."""
    if fact.startswith(_CODE):
        return fact.removeprefix(_CODE) in markdown
    return _words(fact) in (lines if "|" in fact else text)


def _print(pages: Sequence[Page], scores: dict[str, dict[str, Score]]) -> None:
    sets = len({page.set for page in pages})
    size = sum(len(page.content) for page in pages) / 1e6
    print(f"{len(pages)} pages of {sets} documentation sets, {size:.1f} MB\n")
    print("| reader | words kept | navigation dropped | facts kept | facts dropped | ms a page | errors |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, by_set in scores.items():
        score = by_set["all"]
        print(f"| {name} | {_cells(score)} | {_milliseconds(score):.1f} | {score.counts['errors']} |")
    print("\n| set | pages |" + "".join(f" {name}: kept | dropped |" for name in list(scores)[:2]))
    print("| --- | --- |" + " --- | --- |" * len(list(scores)[:2]))
    for name in dict.fromkeys(page.set for page in pages):
        rows = [by_set[name] for by_set in list(scores.values())[:2]]
        shares = "".join(
            f" {_percent(row.share('kept'))} | {_percent(row.share('dropped'))} |" for row in rows
        )
        print(f"| {name} | {rows[0].counts['pages']} |{shares}")


def _cells(score: Score) -> str:
    facts = (
        f"{score.counts[kind]} of {score.counts[f'{kind}_of']}" for kind in ("facts_kept", "facts_dropped")
    )
    return " | ".join([_percent(score.share("kept")), _percent(score.share("dropped")), *facts])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _milliseconds(score: Score) -> float:
    return 1000 * sum(score.seconds) / len(score.seconds)


def _as_json(pages: Sequence[Page], scores: dict[str, dict[str, Score]]) -> dict[str, Any]:
    return {
        "pages": len(pages),
        "readers": {
            reader: {
                name: {**score.counts, "milliseconds_a_page": round(_milliseconds(score), 2)}
                for name, score in by_set.items()
            }
            for reader, by_set in scores.items()
        },
    }


if __name__ == "__main__":
    main()
