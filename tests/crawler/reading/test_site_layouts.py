"""Pages laid out as common site generators do: their text is kept, what every page of the site has goes."""

import pytest

from crawlscope.crawler.reading.markdown import to_markdown

HEADING = "<h1>Rotating keys</h1>"
BODY = (
    "<p>Keys are rotated every ninety days, and the former key stays valid for a week.</p>"
    "<h2>By hand</h2>"
    "<p>Call the command on the machine that owns the key. It prints the new fingerprint.</p>"
    "<pre><code>keyring rotate --now</code></pre>"
)
MENU = "".join(
    f'<li><a href="/{name}">{name.title()} chapter</a></li>' for name in ("install", "backup", "upgrade")
)

DOCUSAURUS = f"""
<div id="__docusaurus"><div role="region" aria-label="Skip to main content">
<a href="#main">Skip to main content</a></div>
<nav class="navbar navbar--fixed-top"><a href="/">Keyring</a><a href="/blog">News</a></nav>
<div class="main-wrapper"><aside class="theme-doc-sidebar-container">
<nav aria-label="Docs sidebar" class="menu"><ul>{MENU}
</ul></nav></aside><main class="docMainContainer"><div class="row"><div class="col"><article>
<nav class="theme-doc-breadcrumbs" aria-label="Breadcrumbs"><ul><li>Guides</li></ul></nav>
<div class="theme-doc-markdown">
<header>{HEADING}</header>{BODY}
<div class="tabs-container"><ul role="tablist"><li role="tab">Linux</li><li role="tab">macOS</li></ul>
<div role="tabpanel">On Linux the key is a file.</div>
<div role="tabpanel" hidden>On macOS the key is in the keychain.</div></div>
</div></article><nav class="pagination-nav" aria-label="Docs pages">
<a href="/backup">Next: Backup chapter</a></nav></div>
<div class="col"><div class="table-of-contents"><ul><li><a href="#by-hand">By hand</a></li></ul></div>
</div></div></main></div>
<footer class="footer">Made with Docusaurus</footer></div>"""

READ_THE_DOCS = f"""
<div class="wy-grid-for-nav"><nav data-toggle="wy-nav-shift" class="wy-nav-side">
<div class="wy-side-scroll">
<div role="search"><form><input type="text" placeholder="Search docs"></form></div>
<div class="wy-menu wy-menu-vertical" role="navigation"><ul>{MENU}</ul></div></div></nav>
<section class="wy-nav-content-wrap"><div class="rst-content">
<div role="navigation" aria-label="Page navigation">
<ul class="wy-breadcrumbs"><li><a href="/">Guides</a></li><li><a href="/src">View page source</a></li></ul>
</div>
<div role="main" class="document"><div itemprop="articleBody"><section id="rotating">{HEADING}{BODY}
<div class="admonition warning"><p class="admonition-title">Warning</p><p>On Linux the key is a file.</p>
</div>
<p>On macOS the key is in the keychain.</p></section></div></div>
<footer><div role="navigation"><a href="/backup">Next: Backup chapter</a></div><p>Made with Docusaurus</p>
</footer></div></section></div>"""

FURO = f"""
<div class="page"><aside class="sidebar-drawer"><div class="sidebar-container">
<form class="sidebar-search-container">
<input placeholder="Search"></form><div class="sidebar-tree"><ul>{MENU}</ul></div></div></aside>
<div class="main"><div class="content"><div class="article-container"><article role="main">{HEADING}{BODY}
<p>On Linux the key is a file.</p><details><summary>Other systems</summary>
<p>On macOS the key is in the keychain.</p></details>
</article></div><footer><div class="related-pages">
<a class="next-page" href="/backup">Next: Backup chapter</a></div>
<div class="bottom-of-page">Made with Docusaurus</div></footer></div><aside class="toc-drawer">
<div class="toc-sticky">
<span>On this page</span><ul><li><a href="#a">By hand</a></li></ul></div></aside></div></div>"""

WORDPRESS = f"""
<div id="page" class="site"><header id="masthead" class="site-header"><p class="site-title">
<a href="/">Keyring</a></p>
<nav id="site-navigation"><ul>{MENU}</ul></nav></header><div id="content"><div id="primary">
<main id="main"><article class="post">
<header class="entry-header">{HEADING}</header><div class="entry-content">{BODY}
<p>On Linux the key is a file.</p><p>On macOS the key is in the keychain.</p></div></article>
<nav class="navigation post-navigation"><div class="nav-next"><a href="/backup">Next: Backup chapter</a>
</div></nav></main></div>
<aside id="secondary" class="widget-area"><section class="widget"><h2>Recent posts</h2><ul>{MENU}</ul>
</section></aside></div>
<footer id="colophon" class="site-footer">Made with Docusaurus</footer></div>"""


@pytest.mark.parametrize("page", [DOCUSAURUS, READ_THE_DOCS, FURO, WORDPRESS])
def test_the_text_is_kept_and_the_furniture_goes(page: str) -> None:
    markdown = to_markdown(
        f"<!DOCTYPE html><html><body>{page}</body></html>", "https://keys.example/guide"
    ).markdown
    for kept in (
        "# Rotating keys",
        "Keys are rotated every ninety days",
        "## By hand",
        "keyring rotate --now",
        "On Linux the key is a file.",
        "On macOS the key is in the keychain.",
    ):
        assert kept in markdown
    for gone in ("Install chapter", "Upgrade chapter", "Made with", "Skip to", "Search", "Next: Backup"):
        assert gone not in markdown
