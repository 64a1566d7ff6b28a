"""Whether a log that rotates loses or garbles a line: eight processes write 100,000, one reads meanwhile.

    python tools/log_rotation.py             what came of it; status 1 where a line is missing, twice, or not whole

The file is small enough to rotate ten times and more, and enough older ones are kept to count every line.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from geoflow.support import logfile, logs

WRITERS, LINES, ROTATIONS = 8, 100_000, 10


def _shrink() -> None:
    logfile.MAX_BYTES, logfile.BACKUPS = 2_000_000, 100


def write(path: str, writer: int, said: multiprocessing.Queue[tuple[int, int]]) -> None:
    """Log the lines of one writer, and say of each hundredth that it is written."""
    _shrink()
    logs.configure_worker(path)
    logs.set_fields({"task_id": f"writer-{writer}", "job_id": "j" * 64})
    speak = logging.getLogger("a.handler").info
    for number in range(LINES // WRITERS):
        speak("line %d é%s", number, "x" * (number % 97), extra={"number": number})
        if number % 100 == 0:
            said.put((writer, number))


def counted(path: str) -> Counter[tuple[str, int]]:
    """How often each line is there that is whole."""
    found: Counter[tuple[str, int]] = Counter()
    for line in logs.read(path):
        if line["message"] == f"line {line['number']} é{'x' * (line['number'] % 97)}":
            found[line["task_id"], line["number"]] += 1
    return found


def main() -> int:
    _shrink()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "work.log"))
        said: multiprocessing.Queue[tuple[int, int]] = multiprocessing.Queue()
        began = time.monotonic()
        writers = [multiprocessing.Process(target=write, args=(path, n, said)) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        reads = wrong = 0
        known: set[tuple[str, int]] = set()
        while any(writer.is_alive() for writer in writers):
            while not said.empty():
                writer_number, number = said.get()
                known.add((f"writer-{writer_number}", number))
            seen = counted(path)
            reads += 1
            wrong += len(known - seen.keys()) + sum(count > 1 for count in seen.values())
        seconds = time.monotonic() - began
        for writer in writers:
            writer.join()
        end = counted(path)
        expected = {(f"writer-{n}", number) for n in range(WRITERS) for number in range(LINES // WRITERS)}
        missing, twice = expected - end.keys(), sum(count > 1 for count in end.values())
        files = len(list(Path(folder).glob("work.log*")))
    print(f"{len(end):,} lines of {WRITERS} processes in {seconds:.1f} s, over {files - 1} rotations")
    print(
        f"missing {len(missing)}, twice {twice}; {reads} times read meanwhile, {wrong} lines of these missing or twice"
    )
    return int(bool(missing or twice or wrong or files <= ROTATIONS))


if __name__ == "__main__":
    sys.exit(main())
