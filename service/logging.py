"""Structured logs, on standard error, with secrets removed."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from service.settings import Settings

_SECRET_NAMES = re.compile(r"(?i)(api_?key|authorization|secret|password|token|cookie)")
_SECRET_IN_URL = re.compile(r"(?P<scheme>[a-z0-9+]+://[^\s:/@]*):[^\s@/]+@", re.IGNORECASE)
_SECRET_KEY = re.compile(r"sama_[0-9a-f]{8}\.[0-9A-Za-z_-]{20,}")


def redact_text(text: str) -> str:
    """Return `text` without passwords in URLs and without API keys."""
    return _SECRET_KEY.sub("sama_***", _SECRET_IN_URL.sub(r"\g<scheme>:***@", text))


def _redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = redact_text(value)
    return event


def configure_logging(settings: Settings, process: str) -> None:
    """Send this process's logs, the standard library's included, through one redacting formatter."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    structlog.contextvars.bind_contextvars(process=process)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger called `name`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
