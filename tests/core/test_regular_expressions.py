"""Regular expressions mean the same in every Python that is supported."""

import re
from pathlib import Path

import crawlscope

SOURCES = sorted(Path(crawlscope.__file__).parent.rglob("*.py"))
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[\d,]+\})\+|\(\?>")


def test_no_group_is_possessive() -> None:
    """Python 3.11.0 to 3.11.4 backtrack into possessive groups wrongly: they miss what they should match."""
    used = [
        f"{path.name}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if POSSESSIVE_GROUP.search(line)
    ]
    assert SOURCES
    assert not used
