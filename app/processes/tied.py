"""Become another program that ends when its parent does: ``python -I -S tied.py PARENT_PID PROGRAM ARGUMENT...``.

It runs between fork and exec of a child, as a program of its own, because code of the parent must not run there
(threads). The kernel keeps the wish over ``exec``, and sends SIGTERM the moment the parent is gone, however it went.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it went before the wish was heard
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - that is the point


if __name__ == "__main__":
    main()
