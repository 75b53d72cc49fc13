"""Code is text: links, colours and numbered lines within it are none of it."""

import re

from turbohtml import Element, Text

from crawlscope.crawler.reading.anchors import PERMALINK_NAMES, PERMALINKS
from crawlscope.crawler.reading.tree import is_within, words

CODE = ["code", "kbd", "samp", "tt"]
_BLOCK_IN_CODE = ["div", "p", "li", "tr"]
_LANGUAGE_CLASS = re.compile(
    r"(?:^|[\s-])(?:language|lang|highlight|brush:?|sourceCode)[\s-]\s*([\w+#.-]{1,20})"
)
_NO_LANGUAGE = frozenset(
    {"default", "none", "notranslate", "text", "plain", "plaintext", "numberSource", "highlight"}
)


def plain_signatures(region: Element) -> None:
    """Sphinx sets every parameter of a signature in markup of its own: one piece of code reads better."""
    for term in list(region.select("dt.sig")):
        for anchor in list(term.iter_elements("a")):
            if words(anchor) in PERMALINKS or PERMALINK_NAMES.search(anchor.attr("class") or ""):
                anchor.decompose()
        for anchor in list(term.select(".viewcode-link")):
            anchor.decompose()
        code = Element("code", None, [Text(words(term))])
        term.clear()
        term.append(code)


def plain_code(region: Element) -> None:
    for code in list(region.iter_elements(["listing", "xmp", "plaintext"])):
        code.tag = "pre"
    for pre in list(region.iter_elements("pre")):
        if is_within(pre, "pre"):
            continue
        language = _language_of_code(pre)
        for line_break in list(pre.iter_elements("br")):
            line_break.replace_with(Text("\n"))
        for line in list(pre.iter_elements(_BLOCK_IN_CODE)):
            before = line.previous_sibling
            if before is not None and before.text and not before.text.endswith("\n"):
                line.insert_before(Text("\n"))
            if not line.text.endswith("\n"):
                line.append(Text("\n"))
        code = Element("code", {"class": f"language-{language}"} if language else None, [Text(pre.text)])
        pre.clear()
        pre.append(code)
    for code in list(region.iter_elements(CODE)):
        if any(child.tag not in ("br", "img") for child in code.iter_elements()):
            code.set_text(code.text)


def _language_of_code(pre: Element) -> str | None:
    inner = pre.find("code")
    outer = pre.parent
    wrapper = outer.parent if isinstance(outer, Element) else None
    for element in (inner, pre, outer, wrapper):
        if not isinstance(element, Element) or element.tag in ("body", "main", "article", "section"):
            continue
        said = element.attr("data-lang") or element.attr("data-language")
        found = said or next(iter(_LANGUAGE_CLASS.findall(element.attr("class") or "")), None)
        if found and found not in _NO_LANGUAGE:
            return found if re.fullmatch(r"[\w+#.-]{1,20}", found) else None
    return None
