"""Redis's exceptions in our tree, for everything in this package that talks to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis.exceptions

from domain.errors import BadAnswer
from features.online import mapped


@contextlib.contextmanager
def mapping_errors() -> Iterator[None]:
    """Raises ``DependencyError`` in place of what redis-py raises."""
    try:
        yield
    except redis.exceptions.ResponseError as error:
        raise BadAnswer(f"Redis refused: {str(error).partition(' ')[0]}") from error  # its code; the rest may quote us
    except redis.exceptions.RedisError as error:
        raise mapped(error) from error
