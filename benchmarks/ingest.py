"""How many pages a second become searchable, from the HTTP request on, if embedding costs nothing.

python -m benchmarks.ingest [--quick] [--pages N] [--rounds N] [--json FILE]
"""

import statistics
from collections.abc import Sequence

from benchmarks.load import Load
from benchmarks.part import Options, Row, run_alone
from benchmarks.service import instant_service

PART = "ingest"


async def measure(options: Options) -> Sequence[Row]:
    pages = options.pages_or(400, 100)
    async with instant_service() as service:
        ours = [
            (await service.ingest(Load(f"round-{number}", pages))).pages_per_second
            for number in range(options.rounds_or(3))
        ]
    return [Row(PART, "HTTP request to searchable", statistics.median(ours), "pages/s")]


if __name__ == "__main__":
    run_alone(measure, __doc__)
