"""One JSON object a line on stderr.

Whatever clients send is escaped by the encoding, so a line feed or an escape sequence in a header cannot forge a line
or reach a terminal. Transcripts and audio are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

MAX_VALUE = 200


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, then the fields passed as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: _bounded(name, value) for name, value in line.items()}, ensure_ascii=True)


def configure_logging(level: str) -> None:
    """Send everything that is logged in this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _bounded(name: str, value: Any) -> Any:
    if name != "traceback" and isinstance(value, str) and len(value) > MAX_VALUE:
        return value[:MAX_VALUE] + "..."
    return value
