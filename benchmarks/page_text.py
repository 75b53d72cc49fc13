"""How much of real HTML pages survives the way to Markdown, and how much of the site around them stays.

    python -m benchmarks.page_text FOLDER [--limit N]

Compares this project's `to_markdown` with html-to-markdown's own preprocessing and, where it is installed,
with trafilatura. The pages themselves say what their main content is: `<main>`, `[role=main]` or the body.
"""

import argparse
import importlib.util
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import html_to_markdown
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from crawlscope.crawler.markdown import to_markdown

Converter = Callable[[str], str]

_LINK = re.compile(
    r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:<[^>]*>|[^()\s]*(?:\([^()]*\))?[^()\s]*)(?: \"[^\"]*\")?\)"
)
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")
_LEAST_WORDS = 4


@dataclass
class Truth:
    sentences: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    code_lines: list[str] = field(default_factory=list)
    furniture: list[str] = field(default_factory=list)
    """Links and headings of navigation, side bars and footers whose text the main content does not have."""


KINDS = tuple(vars(Truth()))


@dataclass
class Score:
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    of: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    seconds: float = 0.0
    characters: int = 0
    errors: int = 0

    def share(self, kind: str) -> str:
        return f"{100 * self.kept[kind] / self.of[kind]:.1f} %" if self.of[kind] else "–"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=200, help="the most pages, taken evenly over the folder")
    options = parser.parse_args()
    pages = _pages(options.folder, options.limit)
    truths = [_truth(page) for page in pages]
    size = sum(map(len, pages)) / 1e6
    print(f"{len(pages)} pages, {size:.1f} million characters\n")
    titles = "".join(f"{kind.replace('_', ' '):>12}" for kind in KINDS)
    print(f"{'':30}{titles}{'s/MB':>10}{'output':>10}{'errors':>8}")
    for name, convert in _converters().items():
        score = _score(convert, pages, truths)
        shares = "".join(f"{score.share(kind):>12}" for kind in KINDS)
        speed = f"{score.seconds / size:10.2f}{score.characters / 1e6:8.1f} M"
        print(f"{name:30}{shares}{speed}{score.errors:8}")


def _pages(folder: Path, limit: int) -> list[str]:
    files = sorted(folder.rglob("*.html"))
    chosen = files[:: max(1, len(files) // limit)][:limit]
    return [file.read_text(encoding="utf-8", errors="replace") for file in chosen]


def _converters() -> dict[str, Converter]:
    return {
        "crawlscope": lambda page: to_markdown(page, "http://site.test/page.html").markdown,
        "html-to-markdown, standard": _rust("standard"),
        "html-to-markdown, aggressive": _rust("aggressive"),
        **_trafilatura(),
    }


def _rust(preset: str) -> Converter:
    options = html_to_markdown.ConversionOptions(
        preprocessing=html_to_markdown.PreprocessingOptions(preset=preset), extract_metadata=False
    )
    return lambda page: html_to_markdown.convert(page, options).content or ""


def _trafilatura() -> dict[str, Converter]:
    if importlib.util.find_spec("trafilatura") is None:
        return {}
    library: ModuleType = importlib.import_module("trafilatura")

    def converter(*, recall: bool) -> Converter:
        return lambda page: (
            library.extract(page, output_format="markdown", include_links=True, favor_recall=recall) or ""
        )

    return {"trafilatura": converter(recall=False), "trafilatura, favor_recall": converter(recall=True)}


def _score(convert: Converter, pages: list[str], truths: list[Truth]) -> Score:
    score = Score()
    for page, truth in zip(pages, truths, strict=True):
        began = time.process_time()
        try:
            markdown = convert(page)
        except Exception:  # noqa: BLE001  # a converter that fails on a page is what is measured
            markdown = ""
            score.errors += 1
        score.seconds += time.process_time() - began
        score.characters += len(markdown)
        _count(score, truth, markdown)
    return score


def _count(score: Score, truth: Truth, markdown: str) -> None:
    plain = _LINK.sub(r"\1", _LINK.sub(r"\1", markdown))
    text = f" {_words(plain)} "
    headings = {_words(line) for line in plain.splitlines() if line.lstrip().startswith("#")}
    lines = {_words(line) for line in plain.splitlines()}
    for kind, found_in in (
        ("sentences", lambda words: f" {words} " in text),
        ("headings", headings.__contains__),
        ("code_lines", lines.__contains__),
        ("furniture", lines.__contains__),
    ):
        wanted = getattr(truth, kind)
        score.of[kind] += len(wanted)
        score.kept[kind] += sum(1 for words in wanted if found_in(words))


def _truth(page: str) -> Truth:
    document: HtmlElement = document_fromstring(page.encode(), parser=HTMLParser(encoding="utf-8"))
    for element in document.xpath('//script | //style | //a[contains(@class, "headerlink")]'):
        element.drop_tree()
    main = next(iter(document.xpath('//main | //*[@role="main"]')), document.find("body"))
    if main is None:
        return Truth()
    truth = Truth(
        headings=_distinct(
            main.xpath(".//h1 | .//h2 | .//h3 | .//h4 | .//strong[contains(@class, 'title')]")
        ),
        code_lines=[
            words for code in main.iter("pre") for line in _text(code).splitlines() if (words := _words(line))
        ],
    )
    for block in main.xpath(".//p | .//li | .//dd | .//td | .//span[@class='code']"):
        if not block.xpath("./p | ./ul | ./dl | ./pre | ./table | ./span[@class='code']"):
            truth.sentences += _sentences(_text(block))
    body = document.find("body")
    main_words = {_words(_text(link)) for link in main.iter("a", "h3", "li")}
    outside = body.xpath(
        ".//*[self::a or self::h3 or self::h4][not(ancestor::main or ancestor::*[@role='main'])]"
    )
    if main is not body:
        truth.furniture = [words for words in _distinct(outside) if words not in main_words]
    return truth


def _distinct(elements: Iterable[HtmlElement]) -> list[str]:
    return [words for words in dict.fromkeys(_words(_text(element)) for element in elements) if words]


def _text(element: HtmlElement) -> str:
    return str(element.text_content()).replace("\xa0", " ")


def _sentences(text: str) -> list[str]:
    found = (_words(sentence) for sentence in _SENTENCE_END.split(text))
    return [words for words in found if words.count(" ") + 1 >= _LEAST_WORDS]


def _words(text: str) -> str:
    """Only letters and digits, so that Markdown's own characters neither help nor hurt."""
    return " ".join(_WORD.findall(text.replace("_", " "))).lower()


if __name__ == "__main__":
    main()
