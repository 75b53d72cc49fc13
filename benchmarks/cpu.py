"""CPU time and SQL statements of a page, from its HTTP request until it is searchable, without embedding.

    python -m benchmarks.cpu [--quick] [--pages N] [--rounds N] [--json FILE] [--details]

CPU time is that of all processes of the service, from /proc, those that have ended included. The embedder is
a server that answers at once, so that the worker's part of embedding (requests, answers) counts too.
Statements are counted in PostgreSQL's log, in a round of its own; `--details` prints them.
"""

import re
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from benchmarks.load import Load
from benchmarks.part import Options, Row, run_alone
from benchmarks.service import Ingested, MeasuredService, instant_service

PART = "cpu"
MAX_CPU_MS = 12.0
MAX_STATEMENTS = 6.0
LOGGED = {"log_statement": "'all'", "log_parameter_max_length": "0", "log_line_prefix": "'%p '"}
_STATEMENT = re.compile(r"^\d+ LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)", re.MULTILINE)
_END = re.compile(r"COMMIT|ROLLBACK(?! TO)")
_TRANSACTION = re.compile(r"(?i)(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|START TRANSACTION)\b")


async def measure(options: Options) -> Sequence[Row]:
    pages = options.pages_or(300, 100)
    async with instant_service() as service:
        rounds = [
            await service.ingest(Load(f"round-{number}", pages)) for number in range(options.rounds_or(3))
        ]
        async with logged_statements(service) as statements:
            await service.ingest(Load("statements", pages))
    if options.details:
        print("\n".join(f"{count / pages:6.2f} {text[:180]}" for text, count in statements.most_common()))
    return [*_cpu_rows(rounds), *_statement_rows(statements, pages)]


def _cpu_rows(rounds: Sequence[Ingested]) -> list[Row]:
    kinds = sorted(rounds[0].cpu_seconds)
    by_kind = {kind: statistics.median(each.cpu_ms(kind) for each in rounds) for kind in kinds}
    total = statistics.median(sum(map(each.cpu_ms, each.cpu_seconds)) for each in rounds)
    return [
        Row(PART, "CPU of a page, all processes", total, "ms", at_most=MAX_CPU_MS),
        *(Row(PART, f"– {kind}", by_kind[kind], "ms") for kind in kinds),
    ]


def _statement_rows(statements: Counter[str], pages: int) -> list[Row]:
    transactions = sum(count for text, count in statements.items() if _END.match(text))
    others = without_transactions(statements)
    return [
        Row(PART, "SQL statements of a page", others / pages, "", at_most=MAX_STATEMENTS),
        Row(PART, "transactions of a page", transactions / pages, ""),
    ]


def without_transactions(statements: Counter[str]) -> int:
    """How many do more than begin or end a transaction."""
    return sum(count for text, count in statements.items() if not _TRANSACTION.match(text))


@asynccontextmanager
async def logged_statements(service: MeasuredService) -> AsyncIterator[Counter[str]]:
    """How often each is executed in the block, known at its end."""
    log = service.data_dir / "postgres" / "log"
    for name, value in LOGGED.items():
        await service.database.execute(f"ALTER SYSTEM SET {name} = {value}")
    await service.database.execute("SELECT pg_reload_conf()")
    began = log.stat().st_size
    statements: Counter[str] = Counter()
    yield statements
    logged = log.read_bytes()[began:].decode(errors="replace")
    counted = Counter(" ".join(text.split()) for text in _STATEMENT.findall(logged))
    statements.update({text: count for text, count in counted.items() if "/* benchmark */" not in text})


if __name__ == "__main__":
    run_alone(measure, __doc__)
