"""Ends a process when the parent dies, unless it has ended before.

    python reaper.py NUMBER CREATED

The parent holds the other end of stdin and never writes: stdin ends when the parent does, however
it does. That may be hours later, when the number may belong to another process; so the process is
also identified by the time at which it was created, as psutil gives it.
"""

import contextlib
import sys

import psutil


def main(number: int, created: float) -> None:
    """Wait for the end of stdin, then end the process if it is still the same."""
    sys.stdin.buffer.read()
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        if process.create_time() == created:
            process.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
