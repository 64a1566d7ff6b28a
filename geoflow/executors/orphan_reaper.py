"""Ends every worker, and what it started, when the process that they work for is gone, however it went.

Run as a program of its own. Its standard input is a pipe that the other process holds open: the pipe's end is the
sign. Workers write their process group into the named pipe given as argument. It needs nothing of geoflow and little
of Python, so that it starts in a moment: half of that time would go to `signal` and `contextlib`.
"""

import os
import select
import sys

SIGKILL = 9


def main(path: str) -> None:
    groups: dict[int, str] = {}  # when its leader began, as in `identity`
    pending = b""
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for writing too, so that it never reads as ended
    ended = False
    while True:
        ready = select.select([0, pipe], [], [], 0 if ended else None)[0]
        if pipe in ready:
            *lines, pending = (pending + os.read(pipe, 4096)).split(b"\n")
            for line in lines:
                number, _, born = line[1:].decode().partition(" ")
                groups.pop(int(number), None)
                if line.startswith(b"+"):
                    groups[int(number)] = born
        elif ended:
            break
        elif 0 in ready and not os.read(0, 4096):
            ended = True
    for group, born in groups.items():
        if not is_another(group, born):
            end(group)


def is_another(pid: int, born: str) -> bool:
    """Whether the number is that of a process which began at another time: the group that was meant is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return state not in "ZX" and born not in ("", "0", fields[18])


def end(group: int) -> None:
    try:  # noqa: SIM105 - contextlib is not imported for it
        os.killpg(group, SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


if __name__ == "__main__":
    main(sys.argv[1])
