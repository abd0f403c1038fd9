"""What commands end with, and how they print."""

from __future__ import annotations

import sys
import time

FAILED = 1
UNUSABLE = 2


def echo(line: str) -> None:
    print(line, flush=True)


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
