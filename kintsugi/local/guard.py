"""Becomes another program that dies with the process that started it, even when that one is killed with SIGKILL.

Run as `python -I -S guard.py PARENT COMMAND...`; the process id stays the same. Linux only: elsewhere it just becomes
the program. Needs nothing but the standard library, so that it starts in milliseconds.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the call above: then nobody will send the signal.
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 -- exactly this command, no shell


if __name__ == "__main__":
    main()
