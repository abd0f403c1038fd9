"""redis-py's connections on uvloop: a write on a connection that was reset is a lost connection, not a bug.

asyncio's transport drops such a write and the read that follows fails; uvloop's raises ``RuntimeError``, which redis-py
does not expect and lets through. Found by `make chaos`.
"""

from __future__ import annotations

from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection


class _LostWhenClosed(AbstractConnection):
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002, RUF100 - redis-py's
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError("the connection was reset") from error


def hardened(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, told honestly when it is lost."""
    return type(f"Hardened{kind.__name__}", (_LostWhenClosed, kind), {})
