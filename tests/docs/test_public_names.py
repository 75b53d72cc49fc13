"""The names that others rely on stay as they are, or change on purpose."""

import pytest

from tests.docs.public_names import RECORD, collected, recorded
from tests.support.commands import crawlscope

NOW, THEN = collected(), recorded()
HOW_TO_CHANGE = (
    "Users rely on these names. If you want to change them, run `python -m tests.docs.public_names`, "
    f"commit {RECORD.name}, and describe the change in CHANGELOG.md."
)


@pytest.mark.parametrize("area", THEN)
def test_public_names_stay(area):
    now, then = NOW[area], THEN[area]
    gone = [f"gone: {name}" for name in then.keys() - now.keys()]
    new = [f"new: {name}" for name in now.keys() - then.keys()]
    changed = [
        f"changed: {name} from {then[name]} to {now[name]}"
        for name in then.keys() & now.keys()
        if then[name] != now[name]
    ]
    differences = sorted([*gone, *new, *changed])
    assert not differences, "\n".join([*differences, HOW_TO_CHANGE])


def test_every_area_is_recorded():
    assert NOW.keys() == THEN.keys(), HOW_TO_CHANGE


@pytest.mark.parametrize(
    ("code", "arguments", "settings"),
    [
        (0, ["--version"], {}),
        (1, ["crawls"], {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"}),
        (2, ["crawls", "--limit", "none"], {}),
        (2, ["crawls"], {"PORT": "none"}),
    ],
)
def test_exit_codes_mean_what_is_recorded(tmp_path, code, arguments, settings):
    assert str(code) in THEN["exit codes"]
    assert crawlscope(tmp_path, *arguments, **settings).returncode == code
