import re

import pytest
from pydantic import SecretStr

from crawlscope.core.settings import ENV_PREFIX, Settings
from tests.support.documentation import PAGES, Section, code_of, page

ROWS = {code_of(row[0])[0]: row for row in Section("", page("docs/settings.md")).rows("variable")}


def test_every_setting_is_documented_and_no_other():
    assert set(ROWS) == {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}


def test_the_defaults_are_those_of_the_program():
    for name, field in Settings.model_fields.items():
        written = ROWS[f"{ENV_PREFIX}{name}".upper()][1]
        if field.default_factory is not None:
            assert not code_of(written)
        elif field.default is None:
            assert written == "none"
        else:
            assert code_of(written)[0] in (str(field.default), str(field.default).lower())


def test_secrets_are_marked():
    """Readers must know which values not to show."""
    secret = {name for name, field in Settings.model_fields.items() if SecretStr in _types(field.annotation)}
    marked = {name for name, row in ROWS.items() if "secret" in row[2].lower()}
    assert {f"{ENV_PREFIX}{name}".upper() for name in secret} <= marked


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_settings_that_exist(path):
    named = re.findall(rf"\b{ENV_PREFIX}[A-Z_]+\b", path.read_text(encoding="utf-8"))
    assert set(named) <= ROWS.keys()


def _types(annotation: object) -> tuple[object, ...]:
    return getattr(annotation, "__args__", (annotation,))
