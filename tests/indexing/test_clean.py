"""Cleaning: the removed and the kept parts, in linear time for any input."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.errors import PageError
from crawlscope.indexing.clean import clean

PAGE = """\
[Skip to main content](https://docs.example/guide#main)

[![](https://docs.example/logo.svg)](https://docs.example/)

Installing the recorder[¶](https://docs.example/guide#installing "Permalink to this heading")

=============================================================================

Read the [changelog](https://docs.example/changes)
, then run `make setup`
 and start.

## [#](https://docs.example/guide#table) Settings [\u200b](https://docs.example/guide#settings "Direct link")

| Name | Meaning |
| ------------ | :-----------: |
| `PORT` | The [port](https://docs.example/port "Port") it listens on<br>   <br>or 0 |

*   First [**step**](https://docs.example/first)
    1.  nested
*

```python
url = "[text](https://docs.example)"  <!-- kept -->


print(url)<br>
```

![A chart of the pages per second](data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==)
![Flow](<Base64-Image-Removed>)
<!-- a comment
over two lines -->The end.
"""

CLEANED = """\
Installing the recorder
===

Read the changelog, then run `make setup`
 and start.

## Settings

| Name | Meaning |
| --- | :---: |
| `PORT` | The port it listens on or 0 |

*   First **step**
    1.  nested

```python
url = "[text](https://docs.example)"  <!-- kept -->


print(url)<br>
```

A chart of the pages per second
Flow
The end."""


def test_a_page_keeps_its_words_and_structure() -> None:
    assert clean(PAGE).replace("##  ", "## ") == CLEANED


@pytest.mark.parametrize(
    ("markdown", "cleaned"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("zero\u200bwidth, soft\xadhyphen\ufeff, nul\x00, escape\x1b", "zerowidth, softhyphen, nul, escape"),
        ("half a pair \ud800here", "half a pair here"),
        ("cafe\u0301 \u1112\u1161\u11ab", "café 한"),
        ("a  \n   \n\n\n\nb", "a\n\nb"),
        ("Skip to content\na\nskip to main content", "a"),
        ("*\na\n  +  \nb\n-", "a\n\nb"),
        ("=====\na\n|----|", "===\na\n|---|"),
        ("a\\\nb\\", "a\nb"),
        ("a <BR/> b", "a b"),
        ("`<!-- code -->` and `[a](b)` and ``[`a`](b)``", "`<!-- code -->` and `[a](b)` and ``[`a`](b)``"),
        (r"\[not a link](u) and \`[link](u)\`", r"\[not a link](u) and \`link\`"),
        ("[`dict[str, int]`](u) and [f(x)](a_(b) 't')", "`dict[str, int]` and f(x)"),
        ("[Card\\\n\\\nwith two lines](u)", "Card\n\nwith two lines"),
        ("[\\#](https://a.example/#x)Title", "Title"),
        ("[#](https://a.example/no-fragment) one", "# one"),
        ("~~~\n[a](b)\n```\n~~~\n[a](b)", "~~~\n[a](b)\n```\n~~~\na"),
        ("url(data:font/woff2;base64,d09GMgABAAAAA+/=) end", "url() end"),
        (
            "```css\nurl(data:font/woff2;base64," + "A" * 100 + ")\n```",
            "```css\nurl(data:font/woff2;base64,)\n```",
        ),
        ("<!-- never closed", "<!-- never closed"),
        ("a <!-- one --> b <!-- never closed", "a  b <!-- never closed"),
        ("Skip to step 3 of the guide", "Skip to step 3 of the guide"),
        ("C:\\\\\nD:", "C:\\\\\nD:"),
        ("[a](b\n\nc)", "[a](b\n\nc)"),
        ("see [1] and [ ] and x[0](y)", "see [1] and [ ] and x0"),
    ],
)
def test_details(markdown: str, cleaned: str) -> None:
    assert clean(markdown) == cleaned


@pytest.mark.parametrize(
    "nothing", ["", " \n\t", "---\n\n***\n|", "[](u)![](i.png)", "\x00\x01", "🎉", "*\n*\n"]
)
def test_text_without_words_is_empty(nothing: str) -> None:
    assert clean(nothing) == ""


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8


@pytest.mark.parametrize(
    "binary",
    [
        PNG.decode(errors="replace"),
        PNG.decode("latin-1"),
        "%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj",
        "\ufffd" * 50 + "text" * 20,
    ],
)
def test_binary_content_is_refused(binary: str) -> None:
    with pytest.raises(PageError, match="not text") as refusal:
        clean(binary)
    assert refusal.value.code == "binary_content"


@pytest.mark.parametrize(
    "text", ["nul\x00 and two \ufffd\ufffd", "Eine \ufffdbersicht f\ufffdr alle L\ufffdnder. " * 9]
)
def test_damaged_text_is_still_text(text: str) -> None:
    assert clean(text)


SIZE = 100_000
HOSTILE = [
    *("[", "![", "[a", "[a](", "[a](b", "[a](<", '[a](b "', "[a](b '", "[a](data:x", "[a](b(c)", "[](a)"),
    *("[a\n", "[`", "`", "``a", "``a`b", "\\", "<!--", "<br>", "<br ", "data:", "data:a/b;", "-|", "* "),
    *("data:a/b;c;c;c;c", ">", "```\n", "~", "====\n", "[#](#)\n\n---\n", "skip to ", "| ", "1) ", "\n"),
    *("\u1100\u1161", "\ud800", "a\u0301\u0323"),
    *("[a](b(c(d(", "[a](((b))", "[a](data:x(y", "[a](b '\\", "[a](\\x", "[`a`", "a`b``", "[a\\]"),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_no_faster_than_the_page(unit: str) -> None:
    """The limit is about a hundred times the usual time, and a fraction of quadratic time."""
    for ending in ("", "x", "-->"):
        assert_quick(unit * (SIZE // len(unit)) + ending)


def assert_quick(page: str) -> None:
    began = time.thread_time()
    clean(page)
    assert time.thread_time() - began < 10


@pytest.mark.parametrize(
    "page",
    [
        " " * SIZE + "x",
        "[a](" + " " * SIZE + "x",
        "a" + "\u0301" * SIZE + "\u0323" * SIZE,
        "-" * SIZE + "x",
        " " * SIZE + "<br",
        "<!--" * SIZE + "-->",
        "[a](" + "(b)" * SIZE + "x y",
        "[a](" + "\\x" * SIZE + " y",
        "[" + "a\n" * SIZE,
        "``" + "a`b" * SIZE,
    ],
)
def test_long_runs_take_linear_time_too(page: str) -> None:
    assert_quick(page)


WORDS = st.text(st.characters(whitelist_categories=["L", "N"]), min_size=1, max_size=12)


@given(st.lists(WORDS, min_size=1), st.data())
def test_every_word_of_a_page_is_kept(words: list[str], data: st.DataObject) -> None:
    shapes = [
        "{}",
        "**{}**",
        "[{}](https://a.example/x)",
        "`{}`",
        "![{}](i.png)",
        "\n# {}\n\n",
        "\n*   {}\n",
        "| {} |",
    ]
    page = " ".join(data.draw(st.sampled_from(shapes)).format(word) for word in words)
    cleaned = clean(page)
    position = 0
    for word in words:
        position = cleaned.index(unicodedata.normalize("NFC", word), position)


@given(st.text())
def test_any_text_is_cleaned_or_refused(text: str) -> None:
    try:
        cleaned = clean(text)
    except PageError:
        return
    cleaned.encode()
    assert cleaned == cleaned.strip()
    assert "\x00" not in cleaned
