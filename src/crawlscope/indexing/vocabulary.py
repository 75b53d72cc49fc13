"""The words of an index: which it knows, in how many documents they are, and which are like another one.

The index itself has only hashes of stems. So each process that prepares documents counts their words. It
writes a word when it sees it first, and again each time that its count has doubled, in a transaction of its
own for which no page waits. A killed process loses what it counted last: those words are no corrections yet.
"""

import re
import string
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain, filterfalse
from threading import Lock
from typing import NoReturn

from rapidfuzz.distance import OSA
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.known import Known
from crawlscope.core.periodic import run_periodically
from crawlscope.database.engine import Database
from crawlscope.indexing.unspaced import UNSPACED

WORDS = models.table_of(models.IndexWord)
MIN_LETTERS = 4
"""Too many shorter words are like each other."""
MAX_LETTERS = 30
MAX_WORDS = 500_000
"""The maximum for one index. Beyond it, words that only one document has are deleted."""
MAX_COUNTED = 200_000
"""Words that a process keeps counting. Beyond it, it counts all of them from the start."""
MAX_GENERATIONS = 2
"""The maximum number of generations that are counted: the serving one, and the one that is being built."""
WRITE_SECONDS = 15.0
RETRY_SECONDS = 10.0
CHECK_SECONDS = 600.0

MAX_RUNS_KEPT = 50_000
"""Runs of letters whose words a process remembers."""

_LETTERS = re.compile(rf"[^\W\d_]{{{MIN_LETTERS},}}")
_BLANKS = bytes(code if chr(code) in string.ascii_letters else ord(" ") for code in range(256))
"""Blanks for all but the letters of ASCII. Splitting there is twice as fast as the pattern."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LAST = "\U0010ffff"
"""Sorts after every letter."""
_WRITE = text("""
    INSERT INTO webhook.index_words AS known (generation_id, word, reversed, documents)
    SELECT :generation_id, word, reverse(word), documents
    FROM unnest(CAST(:words AS text[]), CAST(:documents AS int[])) AS counted (word, documents)
    ORDER BY word
    ON CONFLICT (generation_id, word) DO UPDATE SET documents = known.documents + excluded.documents
""")
_FORGET = text("DELETE FROM webhook.index_words WHERE generation_id = :generation_id AND documents = 1")
_SIMILAR = text("""
    SELECT word, documents FROM webhook.index_words
    WHERE generation_id = :generation_id
      AND char_length(word) BETWEEN :length - 1 AND :length + 1
      AND (word >= :start AND word < :start_end OR reversed >= :end AND reversed < :end_end)
""")


def words_of(text: str) -> Iterator[re.Match[str]]:
    """Those that may be misspelt: of letters, in scripts with spaces between words."""
    return (found for found in _LETTERS.finditer(text) if is_correctable(found[0]))


def is_correctable(run: str) -> bool:
    """Whether the letters are a word in a script with spaces between words."""
    return len(run) <= MAX_LETTERS and (run.isascii() or not UNSPACED.search(run))


def folded(word: str) -> str:
    return (word if word.isascii() else unicodedata.normalize("NFC", word)).lower()


def is_power_of_two(count: int) -> bool:
    return count & (count - 1) == 0


def _runs(text: str) -> list[str]:
    """Runs of letters. Those of ASCII may be too short for a word."""
    lines = [text] if text.isascii() else text.split("\n")
    in_ascii = "\n".join(filter(str.isascii, lines)).encode().translate(_BLANKS).decode().split()
    return in_ascii + _LETTERS.findall("\n".join(filterfalse(str.isascii, lines)))


def _words_in(run: str) -> tuple[str, ...]:
    """The words that a run of letters counts for: itself, and its parts if it is a name such as `getUser`."""
    if len(run) < MIN_LETTERS or not is_correctable(run):
        return ()
    parts = [] if run.islower() or run.istitle() else _CAMEL.split(run)
    return tuple({folded(word) for word in [run, *parts] if len(word) >= MIN_LETTERS})


class WordCounts:
    """Counts the words of documents until they are written. Threads may count at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._next_check = 0.0
        self._known = Known[str, tuple[str, ...]](_words_in, MAX_RUNS_KEPT)
        self._waiting: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._counted: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def count(self, generation_id: int, text: str) -> None:
        words = set(chain.from_iterable(map(self._known.__getitem__, set(_runs(text)))))
        with self._lock:
            counted = self._counted[generation_id]
            if len(self._counted) > MAX_GENERATIONS:
                del self._counted[min(self._counted)]
            if len(counted) > MAX_COUNTED:
                counted.clear()
            counted.update(words)
            self._waiting[generation_id].update(
                {word: count - count // 2 for word in words if is_power_of_two(count := counted[word])}
            )

    async def write(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, defaultdict(Counter)
        try:
            for generation_id, counts in [*waiting.items()]:
                values = {"words": list(counts), "documents": list(counts.values())}
                async with self._database.transaction() as connection:
                    await connection.execute(_WRITE, {"generation_id": generation_id, **values})
                del waiting[generation_id]
                if time.monotonic() >= self._next_check:
                    self._next_check = time.monotonic() + CHECK_SECONDS
                    await self._database.run(partial(forget_rare, generation_id=generation_id))
        finally:  # what an error or a cancellation left is written the next time
            with self._lock:
                for generation_id, counts in waiting.items():
                    self._waiting[generation_id].update(counts)

    async def run(self) -> NoReturn:
        await run_periodically(
            self.write,
            interval_seconds=WRITE_SECONDS,
            retry_seconds=RETRY_SECONDS,
            failure_event="words_write_failed",
        )


async def known_among(connection: AsyncConnection, generation_id: int, words: Collection[str]) -> set[str]:
    found = await connection.scalars(
        select(WORDS.c.word).where(WORDS.c.generation_id == generation_id, WORDS.c.word.in_(words))
    )
    return set(found)


async def most_similar(connection: AsyncConnection, generation_id: int, word: str) -> str | None:
    """The most frequent word that differs in one letter, or in the order of two neighbours.

    One edit leaves the start or the end of a word as it is, so both are looked up.
    """
    kept = (len(word) - 1) // 2
    start, end = word[:kept], word[: -kept - 1 : -1]
    ranges = {"start": start, "start_end": start + _LAST, "end": end, "end_end": end + _LAST}
    rows = await connection.execute(_SIMILAR, {"generation_id": generation_id, "length": len(word), **ranges})
    similar = [
        (documents, other) for other, documents in rows if OSA.distance(word, other, score_cutoff=1) == 1
    ]
    return max(similar)[1] if similar else None


async def forget_rare(connection: AsyncConnection, generation_id: int) -> None:
    """If the index has too many words."""
    count = select(func.count()).where(WORDS.c.generation_id == generation_id)
    if (await connection.scalar(count) or 0) > MAX_WORDS:
        await connection.execute(_FORGET, {"generation_id": generation_id})


async def delete_all(connection: AsyncConnection, generation_id: int) -> None:
    await connection.execute(WORDS.delete().where(WORDS.c.generation_id == generation_id))
