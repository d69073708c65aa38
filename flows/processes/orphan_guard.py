"""Runs a command in the guard's own process group, and ends the whole group when the parent dies.

    python guard.py COMMAND...

The parent holds the other end of stdin and never writes: stdin ends when the parent does, however
it does, kill -9 included. It needs nothing but the standard library, so that it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 10.0  # seconds between asking the group to stop and killing it


def main(command: list[str]) -> int:
    """Run the command and return its status, 128 and the signal's number if a signal ended it."""
    # The group is asked as a whole: the guard stays until the command has ended. A handler, since
    # the command would inherit an ignored signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    orphaned = threading.Event()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]}: cannot be run: {error.strerror}", file=sys.stderr)
        return 127

    def end_with_the_parent() -> None:
        sys.stdin.buffer.read()
        orphaned.set()
        os.killpg(0, signal.SIGTERM)
        time.sleep(GRACE)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    status = child.wait()
    if orphaned.is_set():
        os.killpg(0, signal.SIGKILL)  # what the command may have left behind
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    # Not sys.exit: the other thread still reads stdin, and leaving would wait for its lock.
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
