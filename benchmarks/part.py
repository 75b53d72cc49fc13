"""The common base of the table's parts: their options, their rows, and a run of one part alone."""

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    quick: bool = False
    """For trying: smaller, and less exact."""
    rounds: int | None = None
    pages: int | None = None
    minutes: float | None = None
    operations: int | None = None
    details: bool = False

    def rounds_or(self, usual: int) -> int:
        return self.rounds or (1 if self.quick else usual)

    def pages_or(self, usual: int, quick: int) -> int:
        return self.pages or (quick if self.quick else usual)

    def minutes_or(self, usual: float, quick: float) -> float:
        return self.minutes or (quick if self.quick else usual)


@dataclass(frozen=True)
class Row:
    """One line of the table: a value, or its ratio to another value, and the limit of that."""

    part: str
    what: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """None without a limit."""
        judged = self.value if self.ratio is None else self.ratio
        if self.at_least is not None:
            return judged >= self.at_least
        return None if self.at_most is None else judged <= self.at_most

    def cells(self) -> tuple[str, ...]:
        limit = "" if self.at_least is None else f"≥ {self.at_least:g}"
        limit = limit if self.at_most is None else f"≤ {self.at_most:g}"
        met = {None: "", True: "met", False: "NOT MET"}[self.met]
        ratio = "" if self.ratio is None else number(self.ratio)
        return self.part, self.what, f"{number(self.value)} {self.unit}", self.against, ratio, limit, met


Measure = Callable[[Options], Coroutine[None, None, Sequence[Row]]]
HEADINGS = ("part", "what", "value", "against", "ratio", "limit", "")


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADINGS))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) | {"met": row.met} for row in rows]


def from_json(rows: Sequence[dict[str, object]]) -> list[Row]:
    return [Row(**{name: value for name, value in row.items() if name != "met"}) for row in rows]  # type: ignore[arg-type]  # as `as_json` wrote them


def options_parser(purpose: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller and less exact, for trying")
    parser.add_argument("--rounds", type=int, help="repetitions, of which the median counts")
    parser.add_argument("--pages", type=int)
    parser.add_argument("--minutes", type=float, help="of a part that goes on for a given time")
    parser.add_argument("--operations", type=int, help="of a year of crawls")
    parser.add_argument("--details", action="store_true", help="print what the numbers are made of, too")
    parser.add_argument("--json", type=Path, help="also write all rows to this file")
    return parser


def options_of(given: argparse.Namespace) -> Options:
    return Options(given.quick, given.rounds, given.pages, given.minutes, given.operations, given.details)


def run_alone(measure: Measure, purpose: str | None) -> None:
    given = options_parser(purpose).parse_args()
    rows = asyncio.run(measure(options_of(given)))
    report(rows, given.json)


def report(rows: Sequence[Row], file: Path | None) -> None:
    """Prints the rows, and writes them to the file as JSON if there is one."""
    print(table(rows))
    if file:
        file.write_text(json.dumps(as_json(rows), indent=1, ensure_ascii=False) + "\n")
