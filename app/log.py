"""Logs as one JSON object a line, fit for a machine and for grep.

No user ever appears in them: nothing here logs one, and an exception is told by its type and its frames, because its
message may quote what the caller sent. An error whose message was written by us is logged as the event itself.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Any

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "event", ...}`` with every ``extra`` beside them."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "pid": record.process,
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0]:
            line |= {"error": record.exc_info[0].__name__, "frames": frames(record.exc_info[2])}
        return orjson.dumps(line, default=str).decode()


def frames(trace: TracebackType | None) -> list[str]:
    """``file:line function``, outermost first."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def configure(level: str) -> None:
    """Send everything from ``level`` upwards to standard error; libraries only from ``warning``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("streamrec").setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of every broken request: a line for each scan
