"""Loops over columns, compiled ahead of the first request (numba).

numpy's price is a call, not an element: a stage that needs thirty calls for a few thousand elements pays for the calls.
Written as one loop and compiled it is also easier to read. The rules:

* A compiled function takes and gives arrays and numbers, stands as a private function beside what uses it, and knows
  nothing of requests. Everything else stays Python.
* Its types are fixed in the decorator, so it is compiled when its module is imported and never during a request. What
  is compiled is kept on disk beside the module, or where NUMBA_CACHE_DIR says.
* Arrays come in as they lie in the bundle: read-only, contiguous. Sorting stays numpy's, whose sort is the faster one.
* No index is checked. Rows of this bundle's tables exist (``release.soundness``); of others the caller makes sure.
* What is kept is renewed when the module's own file changes: a compiled function uses no constant and no compiled
  function of another module.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit, types

F = TypeVar("F", bound=Callable[..., Any])
_log = logging.getLogger("streamrec.compiled")

bool_, int32, int64, uint8 = types.boolean, types.int32, types.int64, types.uint8
float32, float64 = types.float32, types.float64


def column(dtype: Any, ndim: int = 1) -> Any:
    """An array that is read: ``ndim`` dimensions, contiguous. One that may be written is taken too."""
    return types.Array(dtype, ndim, "C", readonly=True)


def written(dtype: Any, ndim: int = 1) -> Any:
    """An array that the function writes into, or gives back."""
    return types.Array(dtype, ndim, "C")


def pair(*parts: Any) -> Any:
    """What a function gives that gives several arrays."""
    return types.Tuple(parts)  # type: ignore[no-untyped-call]


def compiled(returns: Any, *arguments: Any) -> Callable[[F], F]:
    """The function over arguments of these types. It computes what Python would: no reordering of sums.

    Where nothing can be kept (no folder may be written to, the disk is full, what was kept is torn) it is compiled all
    the same, again at every start.
    """

    def made(function: F) -> F:
        try:
            return cast("F", njit(returns(*arguments), cache=True, error_model="numpy")(function))
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            _log.warning("compiled code is not kept", extra={"function": function.__qualname__, "why": str(error)})
            return cast("F", njit(returns(*arguments), error_model="numpy")(function))

    return made
