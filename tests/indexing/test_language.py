from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from crawlscope.database.engine import Database
from crawlscope.indexing.language import language_of, likely_languages, primary_language
from crawlscope.indexing.language_model import (
    Identifier,
    identifier,
    in_single_precision,
    shared_tables,
)
from tests.support.installation import running_installation


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("en-US", "en"),
        ("EN", "en"),
        ("en_us", "en"),
        ("de_DE.UTF-8", "de"),
        (" fr ", "fr"),
        ("de-DE, en", "de"),
        ('["pt-BR"]', "pt"),
        ("zh-Hant-TW", "zh"),
        ("fil", "fil"),
        ("iw", "he"),
        ("nb-NO", "no"),
        ("x-default", ""),
        ("und", ""),
        ("German", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_language_is_its_primary_tag_in_any_spelling(said: str | None, kept: str) -> None:
    assert primary_language(said) == kept


ENGLISH = "The boiler is inspected every morning, and the pressure is written into the log. " * 3
GERMAN = "Der Kessel wird jeden Morgen geprüft, und der Druck wird in das Buch eingetragen. " * 3
JAPANESE = "ボイラーは毎朝点検され、圧力は日誌に記録されます。水はきれいでなければなりません。" * 2


@pytest.mark.parametrize(
    ("markdown", "language"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        (JAPANESE, "ja"),
        (
            "野马队在分区轮以十一分击败了匹兹堡钢人队。他也以三十九岁高龄参加超级碗，成为年龄最大的四分卫。",
            "zh",
        ),
        (
            "보일러는 매일 아침 점검되고 압력은 일지에 기록됩니다. 물은 깨끗해야 하며 온도는 일정하다.",
            "ko",
        ),
        ("Kessel", ""),
        ("", ""),
        (f"{ENGLISH}\n\n{GERMAN}", ""),
        (f"```\n{ENGLISH}\n```", ""),
    ],
)
def test_enough_words_identify_the_language(markdown: str, language: str) -> None:
    assert language_of(markdown) == language


@pytest.fixture(scope="module")
def theirs() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@pytest.mark.parametrize(
    "text",
    [
        *(ENGLISH, GERMAN * 40, f"{ENGLISH} {GERMAN}", JAPANESE * 9, ENGLISH.upper(), "Ona kaže да је тако."),
        *("x", "", "é" * 255, "\x00\x01", "1 2 3 4"),
    ],
)
def test_it_says_of_a_text_and_its_halves_what_the_library_says_of_each(
    text: str, theirs: LanguageIdentifier
) -> None:
    middle = text.find(" ", len(text) // 2)
    parts = [text, text[:middle], text[middle:]] if middle > 0 else [text]
    found, expected = identifier().whole_and_halves(text), [theirs.classify(part) for part in parts]
    assert [language for language, _ in found] == [language for language, _ in expected]
    assert [share for _, share in found] == pytest.approx([share for _, share in expected], rel=1e-4)


async def test_the_model_is_in_the_data_folder(database: Database, tmp_path: Path) -> None:
    async with running_installation(database, tmp_path) as installation:
        await installation.crawl("crawl-1", "https://h/a", datetime.now(UTC), words=ENGLISH)
    assert [*(tmp_path / "cache").glob("py3langid-*/ptc.npy")]


def test_processes_share_the_model_and_each_has_it_if_they_cannot(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "py3langid-1"
    (tmp_path / "cache" / "py3langid-1-incomplete").mkdir(parents=True)  # of a killed process
    made = shared_tables(folder)
    assert sorted(made) == sorted(file.stem for file in folder.iterdir())
    again = shared_tables(folder)
    for table in again.values():
        assert isinstance(table.base, np.memmap)
    newer = folder.with_name("py3langid-99")
    shared_tables(newer)
    assert sorted(file.name for file in newer.parent.iterdir()) == ["py3langid-99", "py3langid.lock"]
    folder = newer
    (folder / "ptc.npy").write_bytes(b"")
    (tmp_path / "file").touch()
    for unusable in folder, tmp_path / "file" / "model":
        assert Identifier(shared_tables(unusable)).whole_and_halves(GERMAN)[0][0] == "de"


MIXED = {"en": 1000, "de": 60, "es": 40, "": 20}


@pytest.mark.parametrize(
    ("query", "languages"),
    [
        ("which rivers flow into the sea", ["en"]),
        ("welche Flüsse fließen ins Meer", ["de"]),
        ("qué ríos desembocan en el mar", ["es"]),
        ("犬", ["zh"]),
        ("カメラ", ["ja"]),
    ],
)
def test_the_words_of_a_query_tell_its_language_among_those_of_the_index(
    query: str, languages: list[str]
) -> None:
    assert likely_languages(query, MIXED) == languages


def test_a_query_of_unclear_language_may_be_in_several() -> None:
    assert {"es", "en"} <= set(likely_languages("casa", MIXED))
    assert len(likely_languages("x", dict.fromkeys(["en", "de", "es", "fr", "it", "xx"], 5))) == 4


def test_every_query_is_in_the_only_language_of_an_index() -> None:
    assert likely_languages("welche Flüsse fließen ins Meer", {"en": 3, "": 2}) == ["en"]
    assert likely_languages("rivers", {"de": 3}) == ["de"]
    assert likely_languages("", {}) == ["en"]


def test_each_number_of_half_precision_is_the_samein_single_precision() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    assert np.array_equal(in_single_precision(finite), finite.astype(np.float32))
