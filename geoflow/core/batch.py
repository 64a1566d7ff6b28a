"""Tasks by the batch: what goes out together and what comes back together, as columns, since there may be a million."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from geoflow.core.models import Attempt, Outcome
from geoflow.support.jsonable import from_json

Row = TypeVar("Row", bound=tuple[Any, ...])


class NewTasks(NamedTuple):
    """The tasks of a plan, as columns of one length. ``parameters`` and ``metadata`` are JSON text, maybe in a file.

    ``inputs`` are JSON text about the files that they name, where these were looked at; see `geoflow.jobtypes.inputs`.
    """

    task_ids: Sequence[str]
    task_types: Sequence[str]
    parameters: Iterable[str]
    metadata: Iterable[str | None]
    inputs: Sequence[str | None] = ()

    @classmethod
    def of(cls, *rows: tuple[str, str, str, str | None]) -> NewTasks:
        """Tasks given one by one."""
        return cls(*zip(*rows, strict=True)) if rows else cls((), (), (), ())


class Call(NamedTuple):
    """One task as a worker runs it. ``parameters`` are the handler's to change."""

    key: int
    task_id: str
    task_index: int
    parameters: Any


def named(kind: type[Row], *columns: Iterable[Any]) -> list[Row]:
    """The rows of *columns* as named tuples, in a third of the time that their own ``_make`` would take."""
    return list(map(partial(tuple.__new__, kind), zip(*columns, strict=True)))


class Batch(NamedTuple):
    """Tasks that travel together: of one stage and type, and with one history.

    ``attempt`` is the number of the executions that begin now; ``retries`` and ``losses`` are those before it.
    ``task_ids`` and ``parameters`` are JSON arrays in the order of ``keys``; ``first_key`` is that of the stage.
    """

    task_type: str
    attempt: int
    retries: int
    losses: int
    first_key: int
    keys: Sequence[int]
    task_ids: str
    parameters: str

    @property
    def is_new(self) -> bool:
        """Whether its tasks have neither failed nor been lost before."""
        return not self.retries and not self.losses

    def names(self) -> list[str]:
        """The tasks' ids."""
        names: list[str] = from_json(self.task_ids)
        return names

    def calls(self) -> list[Call]:
        """The tasks one by one."""
        first, keys = self.first_key, self.keys
        return named(Call, keys, self.names(), [key - first for key in keys], from_json(self.parameters))


class Completed(NamedTuple):
    """Executions in one worker that succeeded and have nothing more to tell, which most do.

    What follows ``keys`` are columns; all of it means what it does in a `geoflow.core.models.Attempt`.
    """

    attempt: int
    slot: int
    pid: int
    code: str
    peak_memory: int | None
    keys: Sequence[int]
    started_at: Sequence[float]
    ended_at: Sequence[float]
    cpu: Sequence[float]
    results: Sequence[str]

    def rows(self) -> Iterator[tuple[int, float, float, float, str]]:
        """The columns, row by row."""
        return zip(self.keys, self.started_at, self.ended_at, self.cpu, self.results, strict=True)

    def attempts(self) -> list[Attempt]:
        """The executions one by one."""
        return [
            Attempt(
                *(key, self.attempt, Outcome.COMPLETED, started_at, ended_at, cpu, self.peak_memory, result),
                slot=self.slot,
                pid=self.pid,
                code=self.code,
            )
            for key, started_at, ended_at, cpu, result in self.rows()
        ]
