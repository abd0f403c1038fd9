"""An open-loop load: requests are due at a constant rate, whether or not the last ones were answered.

    python -m loadtests.open_loop --rate 100 --seconds 60 [--grpc] [--json FILE] [--gate NAME]

Latency counts from the moment a request was due, not from when it could be sent, so that a stall of the service is seen
by every request that it would have hit (no coordinated omission). ``--gate`` compares with a table of
``loadtests/budget.toml`` and ends with status 1 if a promise is broken, or if the answers were not what it is about:
ranked by Triton, all candidates, by the reference graph (``loadtests/evidence.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvloop

from app.settings import Settings
from loadtests.evidence import Witness, doubts
from loadtests.http_connection import ConnectionLost, HttpConnection, Response
from loadtests.load_result import FAILED, LoadResult, Sample
from loadtests.traffic import Traffic, read_level, users_of
from release.bundle import read_manifest

BUDGET = Path(__file__).with_name("budget.toml")
GIVEN_UP_SECONDS = 5.0
MAX_CONNECTIONS = 512


class Door(Protocol):
    """One way to ask: HTTP or gRPC. Answers ``(status, level, reasons, resent)`` and raises nothing."""

    async def ask(self, number: int) -> tuple[int, str, tuple[str, ...], bool, str]: ...

    async def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class HttpDoor:
    """Kept-alive connections, as many as are needed at once up to a bound; a request waits where there is none free.

    ``keep_alive`` False opens a connection for each request; ``in_turn`` lets those that are open take turns, as a load
    balancer does, instead of keeping few of them busy. ``inspect`` sees every answer with the user who asked.
    """

    host: str
    port: int
    traffic: Traffic
    keep_alive: bool = True
    in_turn: bool = False
    inspect: Callable[[str, Response], object] = lambda _user, _response: None
    _idle: deque[HttpConnection] = field(default_factory=deque)
    _requests: Iterator[tuple[str, bytes]] = field(init=False)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONNECTIONS))

    def __post_init__(self) -> None:
        self._requests = self.traffic.requests(f"{self.host}:{self.port}")

    async def ask(self, number: int) -> tuple[int, str, tuple[str, ...], bool, str]:
        del number
        user, request = next(self._requests)
        resent = False
        async with self._places:
            try:
                response = await self._exchange(request)
            except ConnectionLost as error:
                if not error.resendable:
                    return FAILED, "", ("client.connection_lost",), False, user
                resent = True
                try:
                    response = await self._exchange(request, fresh=True)
                except (ConnectionLost, OSError):
                    return FAILED, "", ("client.connection_lost",), True, user
            except OSError:
                return FAILED, "", ("client.refused",), False, user
        self.inspect(user, response)
        level, reasons = read_level(response.body) if response.status == 200 else ("", ())
        return response.status, level, reasons, resent, user

    async def _exchange(self, request: bytes, *, fresh: bool = False) -> Response:
        connection = None if fresh else self._free()
        if connection is None:
            connection = await HttpConnection.open(self.host, self.port)
        try:
            response = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        if self.keep_alive and connection.usable:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def hold(self, connections: Sequence[HttpConnection]) -> None:
        """Use these, and open others only when all are busy."""
        self._idle.extend(connections)

    def _free(self) -> HttpConnection | None:
        """The one used last: few connections stay busy, and the rest may age out. Or the one used longest ago."""
        while self._idle:
            if (connection := self._idle.popleft() if self.in_turn else self._idle.pop()).usable:
                return connection
        return None

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


async def offer(door: Door, rate: float, seconds: float, start: float | None = None) -> LoadResult:
    """``rate`` requests a second for ``seconds``; returns when the last is answered or given up.

    ``start`` is a moment of the loop's clock from which due times count (default: now), for loads beside each other.
    """
    loop = asyncio.get_running_loop()
    samples: list[Sample] = []
    running: set[asyncio.Task[None]] = set()
    began = loop.time() if start is None else start
    first = loop.time() - began
    for number in range(int(rate * seconds)):
        due = first + number / rate
        if (wait := began + due - loop.time()) > 0:
            await asyncio.sleep(wait)
        task = loop.create_task(_one(door, number, began, due, samples))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    samples.sort(key=lambda part: part.due)
    return LoadResult(rate, seconds, samples)


async def _one(door: Door, number: int, began: float, due: float, samples: list[Sample]) -> None:
    clock = asyncio.get_running_loop().time
    delay = clock() - began - due
    status, level, resent, user = FAILED, "", False, ""
    reasons: tuple[str, ...] = ("client.given_up",)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            status, level, reasons, resent, user = await door.ask(number)
    samples.append(Sample(due, clock() - began - due, status, level, reasons, delay, user, resent))


def broken_promises(result: LoadResult, promises: Mapping[str, float]) -> list[str]:
    """What of one table of the budget does not hold, a line each; an unknown promise is a ``KeyError``."""
    kept: dict[str, Callable[[float], bool]] = {
        "p50_ms": lambda limit: result.quantile(50) * 1000 <= limit,
        "p95_ms": lambda limit: result.quantile(95) * 1000 <= limit,
        "p99_ms": lambda limit: result.quantile(99) * 1000 <= limit,
        "min_availability": lambda limit: result.availability >= limit,
        "min_full_ratio": lambda limit: result.level_ratio("FULL") >= limit,
        "max_sending_delay_p99_ms": lambda limit: result.sending_delay * 1000 <= limit,
    }
    return [f"{name} {limit:g}" for name, limit in promises.items() if not kept[name](limit)]


def budget(name: str) -> dict[str, Any]:
    """One table of ``budget.toml``."""
    found: dict[str, Any] = tomllib.loads(BUDGET.read_text())[name]
    return found


def promises(table: Mapping[str, Any]) -> dict[str, float]:
    """A table of the budget without what is offered."""
    return {name: value for name, value in table.items() if name not in {"rate", "seconds"}}


def measured(open_door: Callable[[], Door], rate: float, seconds: float, witness: Witness | None = None) -> LoadResult:
    """A load after a second of a slower one, on an event loop of its own; the ``witness`` watches all of the former."""

    async def run() -> LoadResult:
        door = open_door()
        try:
            await offer(door, min(rate, 20.0), 1.0)  # connections opened, nothing measured
            if witness is not None:
                witness.begin()
            result = await offer(door, rate, seconds)
            if witness is not None:
                witness.end()
            return result
        finally:
            await door.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def main() -> int:
    asked = _arguments()
    settings = Settings.from_environment(os.environ)
    gate = budget(asked.gate) if asked.gate else {}
    rate, seconds = asked.rate or gate.get("rate", 50.0), asked.seconds or gate.get("seconds", 10.0)
    traffic = Traffic(users_of(settings.bundle), cold=asked.cold, seed=asked.seed)
    witness = Witness(f"http://{asked.host}:{settings.http_port}", settings.key) if gate else None
    result = measured(lambda: _door(asked, settings, traffic), rate, seconds, witness)
    print(result.text())
    if asked.json:
        asked.json.write_text(result.json() + "\n")
    broken = broken_promises(result, promises(gate))
    if witness is not None:
        broken += doubts(result, witness, traffic.users, read_manifest(settings.bundle).version)
    print(*(f"BROKEN: {promise}" for promise in broken), sep="\n", end="\n" if broken else "")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    asking = argparse.ArgumentParser(description="An open-loop load on the running service")
    asking.add_argument("--rate", type=float, help="requests a second (default: the gate's, else 50)")
    asking.add_argument("--seconds", type=float, help="how long (default: the gate's, else 10)")
    asking.add_argument("--cold", type=float, default=0.05, help="share of users whom nobody knows")
    asking.add_argument("--seed", type=int, default=0)
    asking.add_argument("--grpc", action="store_true", help="ask over gRPC instead of HTTP")
    asking.add_argument("--host", default="127.0.0.1")
    asking.add_argument("--json", type=Path, help="write the result here, too")
    asking.add_argument("--gate", help="table of loadtests/budget.toml that must hold")
    return asking.parse_args()


def _door(asked: argparse.Namespace, settings: Settings, traffic: Traffic) -> Door:
    if asked.grpc:
        from loadtests.grpc_door import GrpcDoor

        return GrpcDoor(f"{asked.host}:{settings.grpc_port}", traffic)
    return HttpDoor(asked.host, settings.http_port, traffic)


if __name__ == "__main__":
    sys.exit(main())
