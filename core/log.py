"""Structured logs: an event name and fields.

Names, numbers and speech of petitioners never enter one.

INFO tells the day's story to an operator, WARNING asks for attention, ERROR wakes someone.
"""

import logging
import sys

import structlog


def configure_logging(*, level: str = "INFO", as_json: bool = False) -> None:
    """Send structlog and the standard library through one renderer to standard error. Call once."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Library chatter that would drown the story; their warnings still pass.
    for noisy in ("aioice", "websockets", "uvicorn.access", "dbos", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Its receivers run in our own scripted clients only, where a frame before the first keyframe
    # cannot be decoded and is no news.
    logging.getLogger("aiortc").setLevel(logging.ERROR)
