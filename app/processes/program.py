"""What every process of the service does for itself: read the settings, run to its end, stop when told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from app import log
from app.settings import Settings
from domain.errors import StreamRecError

SWITCH_SECONDS = 0.001
"""How long a thread that has work waits for the event loop to let it: Python's 5 ms, several times a search of the
index, are most of the time that retrieval has when the loop is busy."""


def run_process(work: Callable[[Settings], Coroutine[Any, Any, None]]) -> int:
    """Run ``work`` with the environment's settings to its end, as a program of its own; the exit status: 0 or 2."""
    try:
        settings = Settings.from_environment(os.environ)
        log.configure(settings.log_level)
        sys.setswitchinterval(SWITCH_SECONDS)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(settings))
    except StreamRecError as error:
        print(f"streamrec: {error}", file=sys.stderr)  # noqa: T201  # for the person at the terminal
        return 2
    except KeyboardInterrupt:  # before the handlers stood
        return 130
    return 0


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told
