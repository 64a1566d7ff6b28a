"""Measure the peers of geoflow, each in an environment of its own, with the same work: ``python benchmarks/peers.py``.

Each peer is one or more scripts in `peers`, run with the packages that it needs and nothing else. What does not install
or run is told so, with the reason. A ratio compares with a bare pool of the standard library in the same process.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.figures import shown  # noqa: E402 - the checkout is not installed
from benchmarks.tasks import load, machine  # noqa: E402

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent)}
SIZES = (1_000, 10_000)
HEAD = ("", "state", "1k/s", "10k/s", "/bare", "/bare", "1 ms", "/bare", "2 st.", "cold s", "/bare")
HEAD_MARKDOWN = (
    *("", "keeps state", "tasks/s, 1,000", "10,000", "/bare, 1,000", "10,000"),
    *("one task, ms", "/bare", "2 stages", "cold, s", "/bare"),
)
WIDTHS = (25, 5, 7, 9, 6, 6, 6, 6, 5, 6, 6)
LEGEND = """\
state    whether results survive when the process is killed
1k/s     tasks a second that do nothing, 1,000 and 10,000 at a time, and both over bare submit
1 ms     milliseconds from one task to its result, warm, and over a bare pool's round trip
2 st.    list, 1,000 tasks of 2 ms, fan-in: the time of chunked map over its time
cold s   seconds of a new process to its first result, and over a spawned bare pool's"""


@dataclass
class Peer:
    """A row: *variant* of the script ``peers/<script>_run.py``, with *packages* installed; none: this environment."""

    label: str
    script: str
    variant: str
    keeps: bool
    packages: tuple[str, ...] = ()
    sizes: tuple[int, ...] = SIZES
    version: str = ""
    trouble: str = ""
    values: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def name(self) -> str:
        return f"{self.script}-{self.variant}"


# fastapi 0.165 lacks an argument that the server of Prefect 3.8 gives it; 0.149 has it.
PEERS = [
    Peer("pool.map in chunks", "pool", "map", False),
    Peer("pool.submit", "pool", "submit", False),
    Peer("geoflow, SQLite", "geoflow", "sqlite", True),
    Peer("geoflow, DuckDB", "geoflow", "duckdb", True),
    Peer("joblib, loky", "joblib", "loky", False, ("joblib",)),
    Peer("pipefunc, in memory", "pipefunc", "memory", False, ("pipefunc",)),
    Peer("pipefunc, a file a task", "pipefunc", "files", True, ("pipefunc",)),
    Peer("Dask distributed, bag", "dask", "bag", False, ("distributed", "dask[bag]")),
    Peer("Dask distributed, futures", "dask", "futures", False, ("distributed", "dask[bag]")),
    Peer("huey, SQLite", "huey", "sqlite", True, ("huey",)),
    Peer("DBOS, SQLite, steps", "dbos", "steps", True, ("dbos",)),
    Peer("DBOS, SQLite, pool", "dbos", "pool", True, ("dbos",)),
    Peer("Prefect", "prefect", "local", True, ("prefect>=3", "fastapi<0.150"), (1_000,)),
]


def main() -> None:
    cache = Path(tempfile.gettempdir()) / "geoflow-benchmark-peers"
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"rows: {', '.join(peer.name for peer in PEERS)}\n\n{LEGEND}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="row", help="such as huey or pipefunc-files; all when none is named")
    parser.add_argument(
        "--cache", type=Path, default=cache, help="where the environments are kept (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--timeout", type=float, default=900, help="seconds for one row, at most (default: %(default)s)"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values of all rounds to FILE")
    options = parser.parse_args()
    rows = [peer for peer in PEERS if not options.rows or {peer.name, peer.script} & set(options.rows)]
    if not rows:
        parser.error(f"there is no such row: choose from {', '.join(peer.name for peer in PEERS)}")

    about = machine()
    print(f"{about}; medians of {options.rounds} rounds\n")
    if options.markdown:
        print(_line(HEAD_MARKDOWN, True), "|---" * len(HEAD_MARKDOWN) + "|", sep="\n", flush=True)
    else:
        print(f"{LEGEND}\n\n{_line(HEAD, False)}", "-" * (sum(WIDTHS) + len(WIDTHS) - 1), sep="\n", flush=True)
    for peer in rows:
        python = _environment(peer, options.cache)
        if python is not None:
            _measure(peer, python, options.rounds, time.monotonic() + options.timeout)
        print(_line(_cells(peer), options.markdown), flush=True)
    versions = dict.fromkeys(f"{peer.script} {peer.version}" for peer in rows if peer.version)
    print(f"\n{', '.join([*versions, f'load after: {load()}'])}")
    for peer in rows:
        if peer.trouble:
            print(f"{peer.label}: {peer.trouble}")
    if options.json is not None:
        found = [{"row": peer.name, "version": peer.version, "trouble": peer.trouble, **peer.values} for peer in rows]
        options.json.write_text(json.dumps({"machine": about, "rows": found}, indent=1) + "\n")


def _environment(peer: Peer, cache: Path) -> Path | None:
    """The Python that has the peer's packages, installed if need be; None when they do not install."""
    if not peer.packages:
        return Path(sys.executable)
    wanted = hashlib.sha256(repr((peer.packages, sys.version)).encode()).hexdigest()[:8]
    home = cache / f"{peer.script}-{wanted}"
    python, ready = home / "bin" / "python", home / "ready"
    if ready.exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", home],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            peer.trouble = f"does not install: {_last_line(done.stderr or done.stdout)}"
            return None
    ready.touch()
    return python


def _measure(peer: Peer, python: Path, rounds: int, deadline: float) -> None:
    script = [python, HERE / "peers" / f"{peer.script}_run.py", peer.variant]
    with tempfile.TemporaryDirectory(prefix="geoflow-peer-", ignore_cleanup_errors=True) as folder:
        for turn in range(rounds):
            commands = {"peer": script, "bare": [python, HERE / "peers" / "pool_run.py", "submit"]}
            order = list(commands) if turn % 2 == 0 else list(reversed(commands))
            found = {name: _run(peer, [*commands[name], "--cold"], folder, deadline) for name in order}
            if peer.trouble:
                return
            peer.values["cold"].append((found["peer"], found["bare"]))
        out = Path(folder) / "figures"
        _run(peer, [*script, "--out", out, "--rounds", rounds, "--sizes", *peer.sizes], folder, deadline)
        for line in out.read_text().splitlines() if out.exists() else []:
            told = json.loads(line)
            if told["figure"] == "version":
                peer.version = told["value"]
            else:
                peer.values[told["figure"]].append((told["value"], told["bare"]))


def _run(peer: Peer, command: Iterable[object], folder: str, deadline: float) -> float:
    """Run *command* with all that it starts, to its end; the seconds until its first line."""
    began = time.perf_counter()
    with (Path(folder) / "errors").open("w+") as errors:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        signal.signal(signal.SIGALRM, lambda *_: _end(process.pid))
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.01))
        try:
            process.stdout.readline()
            seconds = time.perf_counter() - began
            process.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            process.stdout.close()
            _end(process.pid)  # what it has left behind would take time from the next one
        if process.returncode:
            errors.seek(0)
            late = time.monotonic() > deadline
            peer.trouble = "out of time" if late else f"failed: {_last_line(errors.read())}"
    return seconds


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _cells(peer: Peer) -> tuple[str, ...]:
    def value(figure: str) -> str:
        found = [ours for ours, _ in peer.values.get(figure, ())]
        return shown(statistics.median(found)) if found else "-"

    def ratio(figure: str, inverse: bool = False) -> str:
        found = [bare / ours if inverse else ours / bare for ours, bare in peer.values.get(figure, ())]
        return shown(statistics.median(found)) if found else "-"

    small, large = (f"{size} tasks/s" for size in SIZES)
    return (
        *(peer.label, "yes" if peer.keeps else "no", value(small), value(large), ratio(small), ratio(large)),
        *(value("one task, ms"), ratio("one task, ms"), ratio("two stages, s", inverse=True)),
        *(value("cold"), ratio("cold")),
    )


def _line(cells: tuple[str, ...], markdown: bool) -> str:
    if markdown:
        return f"| {' | '.join(cells)} |"
    widths: Any = zip(cells, WIDTHS, strict=True)
    return " ".join(c.rjust(w) if place else c.ljust(w) for place, (c, w) in enumerate(widths)).rstrip()


if __name__ == "__main__":
    main()
