"""The threat model names tests that exist."""

import re

from tests.support.documentation import ROOT, Section, code_of, page

TRIED = Section("", page("docs/security.md")).rows("attack")


def test_every_attack_has_a_test():
    files = [path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")]
    written = {name for text in files for name in re.findall(r"def (test_\w+)", text)}
    assert len(TRIED) > 25
    for attack, _, tests in TRIED:
        assert code_of(tests), attack
        assert set(code_of(tests)) <= written, attack
