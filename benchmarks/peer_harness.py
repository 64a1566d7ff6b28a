"""The same work for every peer, timed the same way; the scripts in `peers` say how each peer does it.

Only the standard library is imported here: each peer runs in an environment of its own, which has no geoflow.
"""

import abc
import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.tasks import (
    alternated,
    busy,
    calibrated,
    gathered,
    listing,
    noop,
    submit_rate,
    submitted,
    timed,
    two_stages_mapped,
    warm_pool,
)

SMALL_JOBS = 20


class Peer(abc.ABC):
    """One way to run tasks in two processes; a context manager that starts and ends them.

    *folder* is empty at first, and the peer's to write to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abc.abstractmethod
    def noops(self, n: int) -> int:
        """Run *n* tasks that do nothing, each one a task to the peer; how many results the caller has."""

    @abc.abstractmethod
    def two_stages(self, n: int, loops: int) -> int:
        """`listing`, then *n* tasks `busy` as it says, then `gathered`, whose answer this is."""


class Mapper(Peer):
    """A peer that runs a function over a list."""

    @abc.abstractmethod
    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]: ...

    def noops(self, n: int) -> int:
        return len(self.many(noop, [{"index": index} for index in range(n)]))

    def two_stages(self, n: int, loops: int) -> int:
        [items] = self.many(listing, [{"n": n, "loops": loops}])
        [answer] = self.many(gathered, [self.many(busy, items)])
        return int(answer)


def main(variants: Mapping[str, Callable[[Path], Peer]], package: str | None = None) -> None:
    """The command line of a peer's script: measure one of its *variants*, of the installed *package*."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=variants)
    parser.add_argument("--cold", action="store_true", help="run one task, print its result, and nothing else")
    parser.add_argument("--out", type=Path, help="write a JSON object a line to this file, each as it is known")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--tasks", type=int, default=1_000, help="of the two-stage work")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if options.cold:
            with variants[options.variant](Path(folder)) as peer:
                print(peer.noops(1), flush=True)
            return

        def tell(figure: str, value: Any, bare: float | None = None) -> None:
            line = json.dumps({"figure": figure, "value": value, "bare": bare})
            if options.out is None:
                print(line, flush=True)
            else:
                with options.out.open("a") as file:
                    file.write(f"{line}\n")

        if package is not None:
            from importlib import metadata

            tell("version", metadata.version(package))
        with warm_pool() as pool, variants[options.variant](Path(folder)) as peer:
            _measure(peer, pool, options.sizes, options.tasks, options.rounds, tell)


def _measure(
    peer: Peer,
    pool: ProcessPoolExecutor,
    sizes: list[int],
    tasks: int,
    rounds: int,
    tell: Callable[..., None],
) -> None:
    """Everything but the cold start. What is slow comes last, so that running out of time costs least."""
    loops = calibrated()
    _run_noops(peer, 20)  # so that starting processes and imports is in no figure
    for turn in range(rounds):
        found = alternated(
            turn,
            {
                "peer": lambda: _median(lambda: _run_noops(peer, 1)),
                "bare": lambda: _median(lambda: submitted(pool, noop, [{"index": 0}])),
            },
        )
        tell("one task, ms", found["peer"] * 1_000, found["bare"] * 1_000)
    for n in sizes:
        for turn in range(rounds):
            found = alternated(turn, {"peer": partial(_rate, peer, n), "bare": partial(submit_rate, pool, n)})
            tell(f"{n} tasks/s", found["peer"], found["bare"])
    for turn in range(rounds):
        found = alternated(
            turn,
            {
                "peer": lambda: timed(lambda: _run_two_stages(peer, tasks, loops)),
                "bare": lambda: timed(lambda: two_stages_mapped(pool, tasks, loops)),
            },
        )
        tell("two stages, s", found["peer"], found["bare"])


def _median(act: Callable[[], object]) -> float:
    """Of up to `SMALL_JOBS` times, or as many as five seconds allow."""
    times = [timed(act)]
    while len(times) < SMALL_JOBS and sum(times) < 5:
        times.append(timed(act))
    return sorted(times)[len(times) // 2]


def _rate(peer: Peer, n: int) -> float:
    return n / timed(partial(_run_noops, peer, n))


def _run_noops(peer: Peer, n: int) -> None:
    found = peer.noops(n)
    assert found == n, f"{found} results of {n} tasks"


def _run_two_stages(peer: Peer, n: int, loops: int) -> None:
    found = peer.two_stages(n, loops)
    assert found == sum(range(n)), f"the fan-in found {found}"
