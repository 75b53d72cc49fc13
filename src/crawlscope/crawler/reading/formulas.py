"""Formulas, raised and lowered text, and readings, written as plain text.

Markdown has no raised text, but 10⁶ is not 106: Unicode's characters, or else the marks of TeX.
"""

import re

from turbohtml import Element, Text

from crawlscope.crawler.reading.tree import words

_RAISED = str.maketrans("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")
_LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_ORDINAL = re.compile(
    r"(?:st|nd|rd|th|er|ère|re|e|ème|eme|nde?|d|a|o|os?|as?|me|mes|mme|lle|lles|gr|r|ª|º)\Z", re.IGNORECASE
)
_TRADE_MARKS = {"tm": "™", "sm": "℠", "r": "®", "(r)": "®", "(tm)": "™"}
_MAX_SHIFTED = 8
"""Longer text stays readable only between the marks of TeX."""


def write_formulas(region: Element) -> None:
    for formula in list(region.iter_elements("math")):
        source = formula.select_one("annotation[encoding='application/x-tex']")
        if source is not None:
            formula.replace_with(Text(f" {words(source)} "))
    for raised in list(region.iter_elements(["msup", "msub"])):
        parts = [part for part in raised if isinstance(part, Element)]
        if len(parts) == 2:
            parts[1].replace_with(Element(raised.tag.removeprefix("m"), None, [Text(words(parts[1]))]))
    for element in reversed(list(region.iter_elements(["sup", "sub"]))):
        if element.find("img") is None:
            is_raised = element.tag == "sup"
            text = _raised(element) if is_raised else _shifted(words(element), _LOWERED, "_")
            element.replace_with(Text(text))


def write_readings(region: Element) -> None:
    """The readings of ruby text after the whole word, so that the word stays one."""
    for ruby in list(region.iter_elements("ruby")):
        readings = [words(reading) for reading in ruby.iter_elements("rt")]
        for aside in list(ruby.iter_elements(["rt", "rp", "rtc"])):
            aside.decompose()
        if any(readings):
            ruby.append(Text(f"({''.join(readings)})"))


def _raised(element: Element) -> str:
    text, previous = words(element), element.previous_sibling
    before = " " if previous is None else previous.text.rstrip()[-1:] or " "
    if text.lower() in _TRADE_MARKS and not before.isdigit():
        return _TRADE_MARKS[text.lower()]
    if _ORDINAL.match(text) and (before.isdigit() or before in "IVXM"):
        return text
    return _shifted(text, _RAISED, "^")


def _shifted(text: str, characters: dict[int, int], mark: str) -> str:
    shifted = text.translate(characters)
    if len(text) <= _MAX_SHIFTED and all(character not in text for character in shifted):
        return shifted
    return f"{mark}{text}" if text.isalnum() else f"{mark}({text})" if text else ""
