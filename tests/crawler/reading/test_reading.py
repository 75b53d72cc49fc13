"""The text of a page, and the meaning that survives in Markdown."""

import pytest

from crawlscope.crawler.fetch import FetchedPage
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.markdown import to_markdown
from crawlscope.crawler.reading.page import read_page
from crawlscope.indexing.clean import clean

URL = "https://example.org/docs/page.html"
PROSE = (
    "The boiler is checked every morning before the first shift, and its pressure goes into the log book. "
)


def markdown(html: str) -> str:
    return to_markdown(html, URL).markdown


def body(html: str) -> str:
    """Within a page that has enough text of its own."""
    return markdown(f"<html lang=en><body><div><h1>Boilers</h1><p>{PROSE * 4}</p>{html}</div></body></html>")


@pytest.mark.parametrize(
    "html",
    [
        '<header id="title-block-header"><h1>Boilers</h1><p>By Ann</p><div>Keep it dry.</div></header>',
        "<section><header><h2>Keep it dry.</h2></header><p>Always.</p></section>",
        '<aside class="admonition warning"><p>Keep it dry.</p></aside>',
        '<aside id="footnotes" role="doc-endnotes"><hr><ol><li>Keep it dry.</li></ol></aside>',
        '<div class="sidebar"><p class="title">Note</p><p>Keep it dry.</p></div>',
        '<footer><ol class="footnotes"><li>Keep it dry.</li></ol></footer>',
        "<blockquote><p>Well said.</p><footer>Keep it dry.</footer></blockquote>",
        "<form><p>Keep it dry.</p><input></form>",
        f"<form>{PROSE * 2} Keep it dry.<input></form>",
        '<div role="tabpanel" hidden="">Keep it dry.</div>',
        '<div class="tab-pane" hidden>Keep it dry.</div>',
        '<div hidden="until-found">Keep it dry.</div>',
        '<a href="#more">More</a><div id="more" hidden>Keep it dry.</div>',
        '<b aria-controls="p1">Open this part</b><div id="p1" aria-hidden="true">Keep it dry.</div>',
        f"<div hidden><p>{PROSE} Keep it dry.</p></div>",
        "<h2><button>Keep it dry.</button></h2><p>Yes.</p>",
        '<button class="accordion">Keep it dry.</button><div class="panel">Yes.</div>',
        '<button aria-expanded="false">How do I keep it dry? Keep it dry.</button><div>So.</div>',
        "<details><summary>Keep it dry.</summary><p>Yes.</p></details>",
        "<article><p>One.</p></article><article><p>Keep it dry.</p></article>",
        f"<noscript><p>{PROSE} Keep it dry.</p></noscript>",
        f"<dialog><p>{PROSE} Keep it dry.</p></dialog>",
        f"<nav><p>{PROSE * 3} Keep it dry.</p></nav>",
        "<div><template shadowrootmode=open><p>Keep it dry.</p></template></div>",
        "<object data=x.svg><p>Keep it dry.</p></object>",
        "<textarea readonly>Keep it dry.</textarea>",
        '<section id="cookies"><h2>Cookies</h2><p>Keep it dry.</p></section>',
        '<div id="cookie-settings"><h2>Cookie settings</h2><p>Keep it dry.</p></div>',
        f"<main hidden><p>{PROSE * 9}</p></main><main><p>{PROSE * 6} Keep it dry.</p></main>",
        f'<a href="/x"><h2>Card</h2><p>{PROSE * 2} Keep it dry.</p></a>',
        "<div class=table-contents><table><tr><th>a<tr><td><a href=x>Keep it dry.</a></table></div>",
        "<h2>See also</h2><ul>" + "<li><a href=x>Keep it dry.</a>" * 8 + "</ul>",
        '<ul class="menu"><li>Soup, 4 crowns</li><li>Keep it dry.</li></ul>',
        '<main><p>Short.</p></main><div class="footnotes"><p>Keep it dry.</p></div>',
        "</body></html><p>Keep it dry.</p>",
        "<table><tr><p>Keep it dry.</p><td>cell</table>",
        "<dl><dt><button>How?</button></dt><dd hidden>Keep it dry.</dd></dl>",
        "<div data-lang=sh hidden><pre>Keep it dry.</pre></div>",
        "<article><p>Wet.</p><footer><p>Keep it dry.</p></footer></article>",
        "<main><dialog><h2>Tip</h2><p>Keep it dry.</p></dialog></main>",
        '<div class="lang-py" hidden>Keep it dry.</div>',
        "<h2>More</h2><div>" + "<h3>A</h3><ul>" + "<li><a href=x>Keep it dry.</a>" * 4 + "</ul></div>",
        "<button>Show the answer</button> <div hidden>Keep it dry.</div>",
        '<div class="carousel"><div class="slide" aria-hidden="true">Keep it dry.</div></div>',
        '<table aria-hidden="true"><tr><th>Boiler</th><td>Keep it dry.</td></tr></table>',
        f"<footer><h2>Questions</h2><p>{PROSE * 4} Keep it dry.</p></footer>",
        f"<main><p>Keep it dry.</p></main><main><p>{PROSE * 9}</p></main>",
        "<article><noscript><p>Keep it dry.</p></noscript></article>",
        "<p>One<div>Keep it dry.</p></div>",
    ],
)
def test_text_of_the_page_is_kept(html: str) -> None:
    assert "Keep it dry." in body(html)


@pytest.mark.parametrize(
    "html",
    [
        '<nav><a href="/a">Lost</a></nav>',
        '<div role="NAVIGATION"><a href="/a">Lost</a></div>',
        '<header><nav><a href="/a">Home</a></nav>Lost</header>',
        "<footer>© 2026 Lost</footer>",
        "<article><p>x</p><footer>Copyright 2026 Lost</footer></article>",
        "<p>x</p><title>Lost</title>",
        '<ul class="breadcrumbs"><li><a href="/">Lost</a></li><li>Here</li></ul>',
        '<div class="navheader"><a href="p">Prev</a> Lost <a href="n">Next</a></div>',
        '<div class="sphinxsidebar"><h3>Topics</h3><ul><li><a href="/a">Lost</a></li></ul></div>',
        '<div class="docSidebarContainer_x1"><ul><li><a href="/a">Lost</a></li></ul></div>',
        '<aside><ul><li><a href="/a">Lost</a></li><li><a href="/b">Other</a></li></ul></aside>',
        '<div id="cookie-banner"><p>We use cookies. Lost</p><button>Accept</button></div>',
        f'<div id="cookiebar" role="dialog"><h2>Lost</h2><p>{PROSE * 2}</p><button>Accept</button></div>',
        '<div class="cookie-hinweis"><p>Lost</p><a class="btn" href="/ok">OK</a></div>',
        '<section aria-label="Cookie banner"><p>Lost</p><button>Accept</button></section>',
        '<main><div id="cookie-consent"><p>Lost</p><button>Accept</button></div></main>',
        '<center>[ <a href="/a">Lost</a> | <a href="/b">Other</a> | <a href="/c">Third</a> ]</center>',
        '<div class="modal" aria-hidden="true"><p>Lost</p></div>',
        '<div role="navigation menubar"><a href="/a">Lost</a></div>',
        "<button>Lost</button>",
        '<p class="menu"><a href="/a">Lost</a> | <a href="/b">Other</a> | <a href="/c">Third</a></p>',
        '<div class="header">Next: <a rel="next" href="n">Lost</a>, Up: <a rel="up" href="u">Top</a></div>',
        '<form role="search"><label>Lost</label><input></form>',
        "<form><label>Lost</label><input></form>",
        "<noscript>Lost: enable JavaScript to use this page.</noscript>",
        "<dialog>Lost</dialog>",
        "<select><option>Lost</option></select>",
        "<p hidden>Lost</p>",
        "<template><p>Lost</p></template>",
        '<a href="#main">Skip to main content</a><span aria-hidden="true">Lost</span>',
        "<div class=toc><p>Lost</p><ul><li><a href=#a>Part one</a><li><a href=#b>Part two</a></ul></div>",
        "<div>" + "".join(f"<a href='/m{n}'>Lost module {n}</a> " for n in range(30)) + "</div>",
        "<ul>" + "<li><a href=#a>Lost part</a>" * 4 + "</ul><h2 id=a>LOST PART</h2>",
    ],
)
def test_furniture_of_the_site_is_left_out(html: str) -> None:
    text = body(html)
    assert "Lost" not in text
    assert "The boiler is checked" in text


def test_a_sidebar_of_several_lists_is_left_out() -> None:
    lists = "".join(f"<h4>Part {n}</h4><ul>{'<li><a href=/x>Lost item</a>' * 6}</ul>" for n in range(4))
    text = markdown(f"<div>{lists}</div><div><h1>Boilers</h1><p>{PROSE * 4}</p></div>")
    assert text.startswith("# Boilers")


def test_the_only_heading_outside_the_main_part_is_kept() -> None:
    html = f"<div class=top><nav><a href=/>Home</a></nav><h1>Boilers</h1></div><main><p>{PROSE}</p></main>"
    assert markdown(html).startswith("# Boilers")
    html = f"<header><nav><a href=/>Home</a></nav><h1>Boilers</h1></header><div><p>{PROSE}</p></div>"
    assert markdown(html).startswith("# Boilers")


def test_headings_of_a_book_are_not_the_page_s() -> None:
    html = (
        f"<div id=menu-bar><h1 class=menu-title>The Book</h1></div><main><h2>Owners</h2><p>{PROSE}</p></main>"
    )
    assert markdown(html).startswith("## Owners")


def test_a_heading_that_nobody_ends_does_not_swallow_the_page() -> None:
    assert markdown("<h1>Boilers<p>Text.<ul><li>one</ul>") == "# Boilers\n\nText.\n\n- one"


def test_a_page_that_is_a_list_of_links_keeps_them() -> None:
    links = "".join(f"<li><a href='/p{n}'>Chapter {n}</a></li>" for n in range(40))
    text = markdown(
        f"<h1>Contents</h1><p>All chapters.</p><div class='toctree-wrapper'><ul>{links}</ul></div>"
    )
    assert text.count("Chapter") == 40


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("10<sup>6</sup> beads", "10⁶ beads"),
        ("12 m<sup>2</sup>, log<sub>2</sub>8, H<sub>2</sub>O", "12 m², log₂8, H₂O"),
        ("10<sup>−3</sup>", "10⁻³"),
        ("3<sup>2<sup>2</sup></sup>", "3^2²"),
        ("e<sup>x+y</sup> and a<sub>ij</sub>", "e^(x+y) and a_ij"),
        ("the 21<sup>st</sup>, le 2<sup>e</sup>, M<sup>me</sup> X", "the 21st, le 2e, Mme X"),
        ("Brand<sup>TM</sup>", "Brand™"),
        ('days.<a href="#fn"><sup>1</sup></a>', "days.¹"),
        ("<math><msup><mi>x</mi><mn>2</mn></msup></math>", "x²"),
        ("<ruby>図書館<rp>(</rp><rt>としょかん</rt><rp>)</rp></ruby>", "図書館(としょかん)"),
    ],
)
def test_raised_and_lowered_text_stays_apart(html: str, text: str) -> None:
    assert markdown(f"<p>{html}</p>") == text


def test_rows_stay_rows_below_a_title() -> None:
    rows = "<tr><td>Adult<td>July<td>40 crowns<tr><td>Child<td>July<td>15 crowns"
    for title in ("<tr><td colspan=3>Tickets", "<tr><th colspan=3>Tickets", "<caption>Tickets</caption>"):
        text = markdown(f"<table>{title}{rows}</table>")
        assert "Tickets" in text.partition("|")[0]
        assert "| Adult | July | 40 crowns |" in text
        assert "| Child | July | 15 crowns |" in text


@pytest.mark.parametrize("first", ["<td>Prices", "<td colspan=2>Prices<tr><td colspan=2>in crowns"])
def test_rows_that_name_a_table_are_none_of_its_columns(first: str) -> None:
    rows = "<tr><td>Plan<td>Month<tr><td>Pro<td>9<tr><td>Max<td>19"
    text = markdown(f"<table><tr>{first}{rows}</table>")
    assert text.startswith("**Prices**\n\n")
    assert text.endswith("| Plan | Month |\n| --- | --- |\n| Pro | 9 |\n| Max | 19 |")


def test_a_cell_over_several_rows_and_columns_leaves_the_others_in_their_columns() -> None:
    text = markdown("<table><tr><th>A<th>B<th>C<tr><td rowspan=2 colspan=2>x<td>1<tr><td>2</table>")
    assert text.splitlines()[-1] == "| x |  | 2 |"


def test_tables_by_role_are_tables() -> None:
    head = "<div role=row><span role=columnheader>Plan</span><span role=columnheader>Price</span></div>"
    row = "<div role=row><span role=cell>Pro</span><span role=cell>9</span></div>"
    text = markdown(f"<div role=table><div role=rowgroup>{head}</div><div role=rowgroup>{row}</div></div>")
    assert text == "| Plan | Price |\n| --- | --- |\n| Pro | 9 |"


def test_a_cell_over_several_rows_is_said_in_each() -> None:
    text = markdown(
        "<table><tr><th>Zone<th>Age<th>Price<tr><td rowspan=3>North<td>Adult<td>4<tr><td>Child<td>2"
        "<tr><td>Dog<td>1<tr><td>South<td>Adult<td>3</table>"
    )
    assert "| North | Child | 2 |\n| North | Dog | 1 |\n| South | Adult | 3 |" in text


@pytest.mark.parametrize(
    ("html", "code"),
    [
        (
            '<pre>fn dig(d: <a href="d.html">Depth</a>) -&gt; <a href="r.html">Result</a></pre>',
            "fn dig(d: Depth) -> Result",
        ),
        ("<pre><code>a<br>b</code></pre>", "a\nb"),
        ('<pre><span class="lineno">1</span><b>x</b> = 1</pre>', "x = 1"),
        ("<pre><code><div>a</div><div>b</div></code></pre>", "a\nb"),
        ("<pre>x<button>Copy</button></pre>", "x"),
        (
            "<table><tr><td class=linenos><pre>1</pre></td><td class=code><pre>x = 1</pre></td></table>",
            "x = 1",
        ),
    ],
)
def test_code_is_code_and_nothing_else(html: str, code: str) -> None:
    assert markdown(html) == f"```\n{code}\n```"


def test_the_language_of_code_is_kept() -> None:
    for html in (
        '<pre class="sourceCode python"><code class="sourceCode python">x</code></pre>',
        '<div class="highlight-python notranslate"><div class="highlight"><pre>x</pre></div></div>',
        '<pre><code class="hljs language-python">x</code></pre>',
        '<pre data-lang="python">x</pre>',
    ):
        assert markdown(html) == "```python\nx\n```"


def test_code_within_lines_has_no_links_and_stays_in_its_line() -> None:
    assert markdown('<p>A <code>Vec&lt;<a href="t.html">T</a>&gt;</code> grows.</p>') == "A `Vec<T>` grows."
    assert markdown('<p>Run <span class="code">burrow add</span> first.</p>') == "Run `burrow add` first."
    assert markdown('<ul><li>The <span class="code">--deep</span> flag.</ul>') == "- The `--deep` flag."


def test_markup_that_a_page_shows_is_text_to_the_index() -> None:
    html = (
        "<p>Write &lt;br&gt; or &lt;!-- a note --&gt; here, [text](target) for links, `ticks` for code,"
        " and &amp;lt; for less.</p>"
        "<p>See <a href='/x'>&lt;div&gt; [2]</a> and <code>&lt;!-- in code --&gt;</code>.</p>"
    )
    text = clean(markdown(html)).replace("\\", "")
    assert text == (
        "Write <br> or <!-- a note --> here, [text](target) for links, `ticks` for code,"
        " and &lt; for less.\n\n"
        "See <div> [2] and `<!-- in code -->`."
    )


@pytest.mark.parametrize("target", ["?c=v.extend(l.iter(a(b)).copied())", "?a=(((b", "a)b)c", "a)b(c"])
def test_targets_with_parentheses_are_no_text(target: str) -> None:
    assert clean(markdown(f'<p><a href="https://e.org/{target}">Run</a> it.</p>')) == "Run it."


def test_brackets_in_links_and_images_keep_their_targets_out_of_the_text() -> None:
    html = '<p><a href="/x">one ] two</a> <a href="/y"><img src="/z.png" alt="a [b] ]c"></a></p>'
    assert clean(markdown(html)).replace("\\", "") == "one ] two a [b] ]c"


@pytest.mark.parametrize(
    ("html", "language"),
    [
        ("<html LANG=de-AT><p>x", "de-AT"),
        ('<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="de"><p>x', "de"),
        ('<META HTTP-EQUIV="Content-Language" CONTENT="fr, en"><p>x', "fr"),
        ("<body lang=pt_BR><p>x", "pt-BR"),
        ('<html lang="{{ lang }}"><meta property="og:locale" content="sv_SE"><p>x', "sv-SE"),
        ("<html lang=en_US.UTF-8><p>x", "en-US"),
        ("<html lang=und><body lang=it><p>x", "it"),
        ("<p>Kessel", None),
    ],
)
def test_languages(html: str, language: str | None) -> None:
    assert to_markdown(html, URL).language == language


RUSSIAN = "Котёл проверяют каждое утро, а давление записывают в журнал."
JAPANESE = "ボイラーは毎朝点検され、圧力は日誌に記録されます。"


@pytest.mark.parametrize(
    ("content", "declared", "text"),
    [
        (JAPANESE.encode() + b"\xe3\x81", "utf-8", JAPANESE + "\ufffd"),
        (JAPANESE.encode() + b"\xe3\x81", None, JAPANESE + "\ufffd"),
        (b"<p>\xff" + "déjà réglé à".encode(), None, "déjà réglé à"),
        (b"<p>caf\xe9 " + "déjà réglé à".encode(), "iso-8859-1", "caf\ufffd déjà réglé à"),
        (RUSSIAN.encode() + b"\xff", "windows-1251", RUSSIAN + "\ufffd"),
        (JAPANESE.encode("cp932") + b"\xff", "shift_jis", JAPANESE + "\ufffd"),
        (JAPANESE.encode("cp932"), "x-sjis", JAPANESE),
        (JAPANESE.encode("cp932"), "windows-31j", JAPANESE),
        (JAPANESE.encode("euc_jp"), "x-euc-jp", JAPANESE),
        (JAPANESE.encode("iso2022_jp"), "csISO2022JP", JAPANESE),
        (JAPANESE.encode(), "shift_jis", JAPANESE),
        ("图书馆周一".encode("gbk"), "x-gbk", "图书馆周一"),
        ("图书馆周一".encode("gbk"), "GB_2312-80", "图书馆周一"),
        ("图书馆".encode("hz"), "hz-gb-2312", "图书馆"),
        ("박물관".encode("cp949"), "windows-949", "박물관"),
        ("박물관".encode("cp949"), "ks_c_5601-1987", "박물관"),
        ("พิพิธภัณฑ์".encode("cp874"), "windows-874", "พิพิธภัณฑ์"),
        ("המוזיאון".encode("iso8859_8"), "iso-8859-8-i", "המוזיאון"),
        (RUSSIAN.encode("cp1251"), "x-cp1251", RUSSIAN),
        (RUSSIAN.encode("cp1251"), None, RUSSIAN),
        (RUSSIAN.encode("koi8-r"), None, RUSSIAN),
        (RUSSIAN.encode("cp1251"), "utf-8", RUSSIAN),
        (JAPANESE.encode("euc_jp"), None, JAPANESE),
        (JAPANESE.encode("cp932"), "no-such-charset", JAPANESE),
        ("“café”".encode("cp1252"), "iso-8859-1", "“café”"),
        ("<p>é".encode("utf-16-le"), None, "<p>é"),
        ("é".encode("utf-16"), "utf-8", "é"),
        ("é".encode("utf-32"), None, "é"),
        (b"abc", "utf-16", "abc"),
        (b"<!-- <meta charset=shift_jis> --><meta charset=koi8-r>" + RUSSIAN.encode("koi8-r"), None, RUSSIAN),
    ],
)
def test_bytes_become_the_text_that_was_meant(content: bytes, declared: str | None, text: str) -> None:
    assert decode(content, declared).endswith(text)


@pytest.mark.parametrize(
    "media_type", ["application/xml", "text/xml; charset=utf-8", "application/xhtml+xml"]
)
def test_xhtml_is_a_page_whatever_its_type(media_type: str) -> None:
    html = (
        '<?xml version="1.0"?>\n<!-- x --><!DOCTYPE html>'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en">'
        '<head><title>Herons</title><script src="s"/></head><body><a id="x"/><h1>Herons</h1>'
        '<p>They stand<![CDATA[ < still]]>.</p><div/><a href="/deep">deep</a></body></html>'
    )
    page = read_page(FetchedPage(URL, 200, media_type, html.encode()))
    assert page.markdown == "# Herons\n\nThey stand < still.\n\n[deep](https://example.org/deep)"
    assert (page.title, page.language, page.links) == ("Herons", "en", ["https://example.org/deep"])


def test_entities_that_a_page_declares_for_itself_are_none_of_its_text() -> None:
    html = b'<!DOCTYPE html SYSTEM "x" [<!ENTITY bird "heron">]><html><body><p>Text</p></body></html>'
    assert read_page(FetchedPage(URL, 200, "application/xhtml+xml", html)).markdown == "Text"


@pytest.mark.parametrize(
    "content_type",
    ["text/html, charset=utf-8", "text/xhtml", "text/htm", "application/html", "unknown/unknown"],
)
def test_html_is_read_however_its_type_is_written(content_type: str) -> None:
    html = b"<title>T</title><p>Text"
    assert read_page(FetchedPage(URL, 200, content_type, html)).markdown == "Text"


def test_xml_with_prefixes_that_nobody_declared_is_read() -> None:
    xml = b"<rss><channel><item><dc:date>Monday</dc:date><a:link>x</a:link></item></channel></rss>"
    assert read_page(FetchedPage(URL, 200, "text/xml", xml)).markdown == "Monday"


@pytest.mark.parametrize(
    ("html", "link"),
    [
        ("<object data=inner.html></object>", "https://example.org/docs/inner.html"),
        ("<embed src=/inner.html>", "https://example.org/inner.html"),
        ("<svg><a xlink:href=node.html><text>x</text></a></svg>", "https://example.org/docs/node.html"),
    ],
)
def test_links_of_embedded_pages_and_drawings_are_followed(html: str, link: str) -> None:
    assert to_markdown(html, URL).links == [link]


def test_what_is_asked_of_this_robot_counts() -> None:
    page = to_markdown("<meta name=Crawlscope content=NoIndex><meta name=other content=nofollow>", URL)
    assert (page.noindex, page.nofollow) == (True, False)


def test_frames_have_a_page_for_readers_without() -> None:
    html = "<frameset><frame src=a.html><noframes><p>See <a href=b.html>the list</a></noframes></frameset>"
    page = to_markdown(html, URL)
    assert page.markdown == "See [the list](https://example.org/docs/b.html)"
    assert page.links == ["https://example.org/docs/a.html", "https://example.org/docs/b.html"]


@pytest.mark.parametrize(
    "html",
    [
        "<table><caption><template shadowrootmode=open><p>Words.</template></caption>",
        "<h1><main><p>Words.</main></h1>",
        '<a"b ' + " ".join(f"x{number}=1" for number in range(60)) + ">Words.",
        f"<h1>Title<main><h2>Words.</h2><p>{PROSE}</main>",
    ],
)
def test_odd_nesting_keeps_its_words(html: str) -> None:
    assert "Words." in markdown(html)


def test_a_page_that_opens_formatting_without_end_is_read_within_bounds() -> None:
    html = "".join(f"<b id={number}><p>word{number}" for number in range(40_000))
    assert "word39999" in markdown(html)
