"""Logs: one line per event, key=value, on stderr; tracebacks only when asked for with level DEBUG."""

import logging
import sys
import traceback
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

NOISY = ("uvicorn", "pgqueuer", "alembic", "httpx", "httpx2", "httpcore2", "crawlee", "asyncio", "mcp")
"""Libraries whose INFO says nothing to an operator."""


def configure(level: str, process: str) -> None:
    """`process` names this one among those that write to the same terminal."""

    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    threshold = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_process,
        structlog.processors.format_exc_info if threshold <= logging.DEBUG else _error_in_one_line,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.LogfmtRenderer(
                    key_order=["timestamp", "level", "process", "event"], bool_as_flag=False
                ),
            ],
        )
    )
    logging.basicConfig(level=threshold, handlers=[output], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _error_in_one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The error and the place that raised it."""
    info: Any = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
        event["error"] = " ".join(f"{type(error).__name__}: {error}{where}".split())
    return event
