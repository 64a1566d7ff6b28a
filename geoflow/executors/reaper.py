"""Ends every worker, and what it started, when the process that they work for is gone, however it went.

Run as a program of its own. Its standard input is a pipe that the other process holds open: the pipe's end is the
sign. Workers write their process group into the named pipe given as argument. It needs nothing of geoflow, so that
it starts in a moment.
"""

import contextlib
import os
import select
import signal
import sys


def main(path: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups: set[int] = set()
    pending = b""
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for writing too, so that it never reads as ended
    ended = False
    while True:
        ready = select.select([0, pipe], [], [], 0 if ended else None)[0]
        if pipe in ready:
            *lines, pending = (pending + os.read(pipe, 4096)).split(b"\n")
            for line in lines:
                group = int(line[1:])
                (groups.add if line.startswith(b"+") else groups.discard)(group)
        elif ended:
            break
        elif 0 in ready and not os.read(0, 4096):
            ended = True
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
