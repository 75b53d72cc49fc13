import random
import re
import time
from html import escape
from pathlib import Path

import pytest
import turbohtml
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlscope.cli import demo_site
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.markdown import PageText, to_markdown
from crawlscope.crawler.reading.tables import plain_tables

URL = "https://example.org/docs/page.html"


def markdown(html: str) -> str:
    return to_markdown(html, URL).markdown


def test_the_site_around_the_text_is_left_out() -> None:
    html = """<html lang="en-GB"><head><title> The  title </title><meta name="description" content="In short">
    <style>p {}</style></head><body><header>Site <h1>Brand</h1></header><nav><a href="/nav">Nav</a></nav>
    <div role="navigation">Crumbs</div><main><article><header><h1>Heading</h1></header><p>Text.</p>
    <aside>A note.</aside><form><input value="x"><button>Send</button></form><script>code()</script>
    <p hidden>unseen</p></article></main><aside>Related</aside><footer>Imprint</footer></body></html>"""
    assert to_markdown(html, URL) == PageText(
        markdown="# Heading\n\nText.\n\nA note.",
        title="The title",
        description="In short",
        language="en-GB",
        links=["https://example.org/nav"],
    )


@pytest.mark.parametrize(
    ("head", "nofollow", "noindex"),
    [
        ('<META NAME="ROBOTS" CONTENT="NOINDEX, NOFOLLOW">', True, True),
        ("<meta name=robots content=None>", True, True),
        ("<meta content='follow;NoIndex' name=' Robots '>", False, True),
        ("<meta name=robots content=noarchive><meta name=robots content=nofollow>", True, False),
        ('<meta name="author" content="nofollow">', False, False),
    ],
)
def test_what_a_page_asks_of_robots(head: str, nofollow: bool, noindex: bool) -> None:
    page = to_markdown(f"<html><head>{head}</head><body><p>Text<a href=/x>x</a></body>", URL)
    assert (page.nofollow, page.noindex) == (nofollow, noindex)
    assert page.links == ([] if nofollow else ["https://example.org/x"])


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ("0; url=en/latest/", "https://example.org/docs/en/latest/"),
        ("5;URL='/home page'", "https://example.org/home%20page"),
        ('0, URL = "next.html?a=1;b=2"', "https://example.org/docs/next.html?a=1;b=2"),
        ("0;next.html", "https://example.org/docs/next.html"),
        ("1.5; url = https://other.example/", "https://other.example/"),
        ("30", None),
        ("30;", None),
        ("0; url=javascript:go()", None),
    ],
)
def test_where_a_page_sends_its_readers(content: str, target: str | None) -> None:
    html = f"<html><head><Meta HTTP-EQUIV=Refresh content='{escape(content)}'>"
    assert to_markdown(html, URL).refresh == target


def test_the_address_a_page_gives_itself() -> None:
    html = '<base href="/base/"><LINK REL="alternate Canonical" HREF=" the-page "><p>Text'
    assert to_markdown(html, URL).canonical == "https://example.org/base/the-page"
    assert to_markdown("<link rel=canonical href='data:,x'><p>Text", URL).canonical is None
    assert to_markdown("<p>Text", URL).canonical is None


def test_frames_and_image_maps_are_links() -> None:
    html = """<html><head><title>API</title></head><frameset cols="20%,80%"><frame src="list.html">
    <frame name=main src="summary.html"></frameset></html>"""
    assert to_markdown(html, URL).links == [
        "https://example.org/docs/list.html",
        "https://example.org/docs/summary.html",
    ]
    html = "<p><a href=a>a</a><iframe src=/b></iframe><map><area href=c#d></map><a href=a#x>a</a>"
    assert [link.rpartition("/")[2] for link in to_markdown(html, URL).links] == ["a", "b", "c"]


def test_without_a_main_part_all_of_the_body_counts() -> None:
    assert markdown("<body><nav>n</nav><h1>A</h1><div>b</div><footer>f</footer>") == "# A\n\nb"
    assert markdown("<p>just a paragraph") == "just a paragraph"


def test_one_teaser_does_not_pass_for_the_main_part() -> None:
    html = f"<body><p>{'Most of the text. ' * 9}</p><article>Teaser.</article><main></main></body>"
    assert "Most of the text." in markdown(html)


def test_a_form_around_the_whole_page_is_no_furniture() -> None:
    assert markdown("<form id=aspnet><h1>Page</h1><p>Text</p><input><select><option>o</select></form>") == (
        "# Page\n\nText"
    )


def test_code_lists_tables_and_emphasis_survive() -> None:
    html = """<main><h2>Use</h2><pre><code class="language-python">def f():
    return "&lt;x&gt;"
</code></pre><ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul>
    <table><tr><th>Name</th><th>Size</th></tr><tr><td>a</td><td>1</td></tr></table>
    <p>With <b>bold</b> and <code>code</code>.</p></main>"""
    text = markdown(html)
    assert '```python\ndef f():\n    return "<x>"\n```' in text
    assert "- one" in text
    assert "inner" in text
    assert "| Name | Size |" in text
    assert "| a | 1 |" in text
    assert "With **bold** and `code`." in text


def test_links_are_absolute_and_marks_are_gone() -> None:
    html = """<base href="/base/"><h2>Part<a class="headerlink" href="#part">¶</a></h2>
    <p><a href="x" title="t">rel</a> <a href="#y">within</a> <a href="https://example.org/docs/page.html#z">too</a>
    <a href="javascript:f()">js</a> <a href="http://[">bad</a></p>"""
    text = markdown(html)
    assert text == "## Part\n\n[rel](https://example.org/base/x) within too\njs bad"


def test_signatures_of_sphinx_are_one_piece_of_code() -> None:
    html = (
        '<dl><dt class="sig sig-object py"><span class="sig-name">dump</span>(<em>obj</em>, <em>*</em>)'
        '<a class="headerlink" href="#d">¶</a></dt><dd><p>Writes.</p></dd></dl>'
    )
    assert markdown(html) == "`dump(obj, *)`\n\nWrites."


@pytest.mark.parametrize("reference", ["&#8;", "&#1;", "&#x1f;", "&#0;", "&#xD800;", "&#xFFFE;"])
@pytest.mark.parametrize(
    "html",
    [
        "<p>Words</p><nav>menu</nav>{} go on",
        "<p>Words {} go <a href='#x'>{}on</a>",
        "<dl><dt class=sig>Words {} go on</dl>",
        '<span class="code">Words {} go on</span>',
        "<table><tr><td colspan=2>Words {} go on<tr><td>a<td>b</table>",
    ],
)
def test_references_to_control_characters_are_left_out(html: str, reference: str) -> None:
    text = markdown(html.replace("{}", reference)).replace("\ufffd", "")
    assert re.findall(r"[^\s#`*]+", text)[:3] == ["Words", "go", "on"]


def test_tables_in_tables_take_no_longer_than_tables_in_a_row() -> None:
    def seconds(html: str) -> float:
        body = turbohtml.parse(html).find("body")
        assert body is not None
        began = time.thread_time()
        plain_tables(body)
        return time.thread_time() - began

    table = "<table><tr><td>x"
    nested, in_a_row = table * 5_000, f"{table}</table>" * 5_000
    assert min(seconds(nested) for _ in range(3)) < 2.5 * min(seconds(in_a_row) for _ in range(3))


def test_layout_tables_become_blocks_and_data_tables_stay() -> None:
    inner = "<table><tr><td><h2>News</h2></td></tr><tr><td>Text</td></tr></table>"
    layout = f"<table><tr><td>{inner}</td></tr></table>"
    assert markdown(layout) == "## News\n\nText"
    data = "<table><tr><td>a</td><td>1</td></tr><tr><td>b</td><td>2</td></tr></table>"
    assert "| b | 2 |" in markdown(data)


@pytest.fixture(scope="module")
def pydoc_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pydoc")
    demo_site.build(folder, ["csv", "json.decoder"])
    return folder


def test_pydoc_pages_read_like_documentation(pydoc_pages: Path) -> None:
    text = to_markdown((pydoc_pages / "json.decoder.html").read_bytes(), URL).markdown
    lines = text.splitlines()
    assert lines[0] == "# json.decoder"
    assert "## Classes" in lines
    assert "### class JSONDecodeError(builtins.ValueError)" in lines
    assert "### class JSONDecoder(builtins.object)" in lines
    assert "Simple JSON <https://json.org> decoder" in lines
    assert "```\n+---------------+-------------------+\n| JSON          | Python            |\n" in text
    assert "\xa0" not in text
    assert "**raw_decode**(self, s, idx=0)" in lines
    assert "| --" not in text


def test_indented_parts_of_docstrings_stay_code(pydoc_pages: Path) -> None:
    text = to_markdown((pydoc_pages / "csv.html").read_bytes(), URL).markdown
    assert "```\nclass excel:\n    delimiter = ','\n" in text


@pytest.mark.parametrize(
    ("body", "declared", "text"),
    [
        ("dé".encode(), None, "dé"),
        ("dé".encode("latin-1"), None, "dé"),
        ("dé".encode(), "iso-8859-1", "dé"),
        ("дом".encode("koi8-r"), "KOI8-R", "дом"),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=shift_jis">日本'.encode("cp932"),
            None,
            "日本",
        ),
        ("中文".encode("gb18030"), "gb2312", "中文"),
        ("a".encode("utf-16"), None, "a"),
        (b"\xef\xbb\xbfa", "latin-1", "a"),
        ("dé".encode(), "no-such-charset", "dé"),
        (b"a\xffb", "utf-8", "a\ufffdb"),
        (b"abc", "zip", "abc"),
        (b"abc", "punycode", "abc"),
    ],
)
def test_charsets(body: bytes, declared: str | None, text: str) -> None:
    assert decode(body, declared).endswith(text)


# fmt: off
FRAGMENTS = [
    "<p>", "<div", "<table>", "<tr>", "<td>", "</td>", "<td colspan=2>", "<!--", "-->", "<![CDATA[", "<?xml",
    "<html>", "<body>", "</body>", "<main>", "<header>", "<h1>", "<frameset>", "<template>", "<math>",
    "<svg>", "'>", '<a href="', "<base href='http://['>", "<form>", "<select>", "<option>", "<script>",
    "</script>", "<pre>", "<ul>", "<li>", "<b>", "</i>", "<dl>", "<dt>", '<dt class="sig">', "<title>",
    '<span class="code">', "&#0;", "&amp", "&#xD800;", "&#1;", "\x00", "\xa0",
    "<template shadowrootmode=open>", "</template>", "<caption>", "<nav>", "<sup>", "<ruby>", "<rt>",
    "<noscript>",
    "<main hidden>", "<td rowspan=9>", "<a href=#x>", "<button aria-expanded>", "<aside>", "<noframes>",
    '<a"b ' + " ".join(f"x{number}=1" for number in range(60)) + ">",
]
# fmt: on


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=8)), max_size=40).map(" ".join))
def test_broken_html_never_raises(html: str) -> None:
    to_markdown(html, URL)
    to_markdown(html.encode("utf-8", "replace"), URL)


HOSTILE = {
    "nested footers of an article": "<article>" + "<footer>words and more " * 20_000,
    "nested hidden parts around code": "<div hidden>" * 20_000 + "<pre>x",
    "deep": "<div>" * 50_000 + "x",
    "unclosed": "<b><i><font>" * 30_000 + "x",
    "quotes": '<a href="' * 150_000,
    "angles": "<" * 1_000_000,
    "attributes": "<p " + " ".join(f"a{number}=1" for number in range(60_000)) + ">x",
    "tables": "<table><tr><td>" * 5_000 + "x",
    "links": "".join(f'<a href="/p/{number}">p {number}</a> ' for number in range(30_000)),
    "entities": "&amp;" * 200_000,
    "spans over rows": "<table>" + "<tr><td rowspan=60000>a<td rowspan=1000>b<td>c" * 3_000,
    "navigation": "<nav><p>text of some kind here </p>" * 10_000,
    "sidebars": "<div class=sidebar><a href=x>y</a>" * 10_000,
    "code": "<p>" + "<span class=code>x</span>" * 30_000,
    "body": "<body " + " ".join(f"a{number}=1" for number in range(60_000)) + "><p>x",
    "rows": "<table>" + "<tr><td>a<td>b<td>c" * 30_000,
    "letters": "<p>" + "<b>x</b>" * 100_000,
    "prose": "<p>" + "Some <b>words</b> of a long page. " * 30_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_page_takes_forever(name: str) -> None:
    began = time.process_time()
    to_markdown(HOSTILE[name], URL)
    assert time.process_time() - began < 20


def test_two_megabytes_are_read_in_seconds() -> None:
    words = random.Random(7)
    paragraph = (
        "<p>" + " ".join(f"<a href='/{words.randrange(9999)}'>word</a>" for _ in range(20)) + " and text.</p>"
    )
    html = f"<main>{paragraph * (2_000_000 // len(paragraph))}</main>"
    began = time.process_time()
    text = to_markdown(html, URL)
    assert time.process_time() - began < 15
    assert text.markdown.count("and text.") == html.count("and text.")
