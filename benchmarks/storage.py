"""How much disk a page takes, against its Markdown, by table.

    python -m benchmarks.storage [--quick] [--pages N] [--json FILE]

Tables with their indexes, after a CHECKPOINT, and without the write-ahead log. The index is listed apart,
because it holds the vectors.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Load
from benchmarks.pages import Site
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.service import MeasuredService, instant_service

PART = "storage"
MAX_RATIO = 0.6
SIZES = """
SELECT n.nspname || '.' || c.relname, pg_total_relation_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
LISTED = 6


async def measure(options: Options) -> Sequence[Row]:
    pages = options.pages_or(500, 200)
    async with instant_service() as service:
        before, index_before = await tables_by_name(service), on_disk(service.data_dir / "index")
        load = Load("stored", pages)
        await service.ingest(load)
        tables, index = await tables_by_name(service), on_disk(service.data_dir / "index")
    site = Site(load.website)
    markdown = sum(len(site.markdown(number).encode()) for number in range(pages)) / pages
    grown = {name: (size - before.get(name, 0)) / pages for name, size in tables.items()}
    total = sum(grown.values())
    largest = sorted(grown, key=lambda name: -grown[name])[:LISTED]
    against = f"Markdown {number(markdown / 1000)} kB"
    return [
        Row(PART, "tables, per page", total / 1000, "kB", against, total / markdown, at_most=MAX_RATIO),
        *(
            Row(PART, f"– {name}", grown[name] / 1000, "kB", against, grown[name] / markdown)
            for name in largest
        ),
        Row(PART, "index with vectors, per page", (index - index_before) / pages / 1000, "kB", against),
    ]


async def tables_by_name(service: MeasuredService) -> dict[str, int]:
    """Their bytes with indexes."""
    await service.database.execute("CHECKPOINT")
    return {row[0]: row[1] for row in await service.database.fetch(SIZES)}


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    run_alone(measure, __doc__)
