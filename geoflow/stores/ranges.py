"""Keys in order as ranges: to change a run of rows costs a fifth of what each by itself does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from geoflow.core.rows import Move


def consecutive(keys: Sequence[int]) -> Sequence[int]:
    """*keys*, which are in order, as a range where they are one."""
    return range(keys[0], keys[-1] + 1) if keys[-1] - keys[0] == len(keys) - 1 else keys


def as_ranges(moves: Iterable[Move]) -> Iterator[tuple[int, int]]:
    """The first and the last of consecutive keys of *moves*, which are mostly one run: to update it costs a fifth.

    Several chunks end, and start, at a time: runs that follow each other are one.
    """
    run: tuple[int, int] | None = None
    for first, last in chain.from_iterable(map(_of_one, moves)):
        if run is not None and first == run[1] + 1:
            run = run[0], last
            continue
        if run is not None:
            yield run
        run = first, last
    if run is not None:
        yield run


def _of_one(move: Move) -> Iterable[tuple[int, int]]:
    if isinstance(move.keys, range):
        return [(move.keys[0], move.keys[-1])] if move.keys else []
    return ((key, key) for key in sorted(move.keys))
