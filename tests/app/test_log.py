"""Log lines: one JSON object each, and no word of what a caller sent."""

from __future__ import annotations

import json
import logging
import sys

from app.log import JsonLines


def written(record: logging.LogRecord) -> dict[str, object]:
    line = JsonLines().format(record)
    assert "\n" not in line
    parsed: dict[str, object] = json.loads(line)
    return parsed


def test_a_line_carries_what_was_added_to_it() -> None:
    record = logging.makeLogRecord({"msg": "bundle\nswapped", "levelname": "INFO", "name": "streamrec.x", "number": 3})
    line = written(record)
    assert (line["event"], line["level"], line["number"]) == ("bundle\nswapped", "info", 3)


def test_an_exception_is_told_by_type_and_place_and_never_by_its_message() -> None:
    users: dict[str, list[int]] = {}
    try:
        users["user 42"].clear()
    except KeyError:
        record = logging.makeLogRecord({"msg": "bug", "exc_info": sys.exc_info()})
    line = written(record)
    assert line["error"] == "KeyError"
    assert "test_log.py" in str(line["frames"])
    assert "42" not in str({name: value for name, value in line.items() if name not in {"pid", "time", "frames"}})
