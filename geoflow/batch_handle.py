"""Many jobs as one: those of one type that were submitted together under a tag, one row a job."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from geoflow.core.models import JobStatus
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import OnExisting, Runtime
from geoflow.errors import GeoflowError, ParameterError, StoreError
from geoflow.job_handle import JobHandle
from geoflow.jobtypes.contract import DefinesJob, Registered
from geoflow.jobtypes.parameters import by_name, job_id_of, validated
from geoflow.render.markup import Html, element, line, state, table, title
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.masking import mask, safe
from geoflow.support.text import aligned, count, fit, human_duration, shorten

if TYPE_CHECKING:
    import pandas as pd

_SHOWN, _REFUSED = 100, 5
_NO_JOB = "not submitted"


class BatchNotFound(GeoflowError, LookupError):
    """No jobs were submitted together under this tag."""


class _Noted(NamedTuple):
    """What the store has of a batch."""

    job_type: str
    job_ids: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> _Noted:
        try:
            told = from_json(text)
            return cls(str(told["job_type"]), tuple(map(str, told["job_ids"])))
        except (ValueError, TypeError, KeyError) as exc:
            raise StoreError("What the store says of this batch is damaged, or another program changed it.") from exc

    def text(self) -> str:
        return to_json(self._asdict())


def submit_all(
    runtime: Runtime,
    job_type: str | type | DefinesJob,
    given: Sequence[Mapping[str, Any]],
    tag: str,
    on_existing: OnExisting,
) -> Batch:
    """Submit a job for each of *given*, once all are checked and the batch is noted; see `Session.map`."""
    name = _name(tag)
    if not given:
        raise ParameterError("Nothing was submitted: there are no parameters, and a batch has at least one job.")
    registered = runtime.registered(job_type)
    wanted = _Noted(registered.name, tuple(_ids(runtime, registered, given)))

    def is_grown(before: str) -> bool:
        """The same jobs and more: so an interrupted map, or a longer list, goes on under its tag."""
        noted = _Noted.of(before)
        return noted.job_type == wanted.job_type and set(noted.job_ids) <= set(wanted.job_ids)

    noted = _Noted.of(runtime.store.keep_note(name, wanted.text(), runtime.clock.now(), is_grown))
    if noted != wanted:
        missing = len(set(noted.job_ids) - set(wanted.job_ids))
        among = f"{missing} of them {'is' if missing == 1 else 'are'} not among these"
        raise ParameterError(
            f"The tag {tag!r} is that of {count(len(noted.job_ids), 'job')} of {noted.job_type}, "
            f"{among if noted.job_type == wanted.job_type else 'another type'}. Nothing was submitted: "
            f"give another tag, or look at session.batch({tag!r})."
        )
    for one in given:
        runtime.submit(job_type, dict(one), on_existing)
    return Batch(runtime, tag, *noted)


def _ids(runtime: Runtime, registered: Registered, given: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The ids of the jobs. ``ParameterError`` lists those of *given* that are refused, and nothing is done then."""
    refused: list[str] = []
    for place, one in enumerate(given):
        try:
            if not isinstance(one, Mapping):
                raise ParameterError(f"parameters are a dict, not {type(one).__name__}.")
            yield job_id_of(registered, validated(registered, by_name(dict(one), {}), runtime.settings.secrets))
        except ParameterError as exc:
            refused.append(f"[{place}] {exc}")
    if refused:
        more = f"\n… and {len(refused) - _REFUSED} more" if len(refused) > _REFUSED else ""
        told = f"{len(refused)} of {count(len(given), 'job')} would have parameters that are refused"
        raise ParameterError(f"Nothing was submitted: {told}.\n" + "\n".join(refused[:_REFUSED]) + more)


def _name(tag: str) -> str:
    if not isinstance(tag, str) or not tag.strip():
        raise ParameterError(f"A tag is a text, such as 'sweep': {shorten(repr(tag), 60)} is none.")
    return f"batch {tag}"


class Batch:
    """The jobs that were submitted together under a *tag*, in the order of their parameters. It is read anew each time.

    ``len``, iteration and ``batch[n]`` are of the jobs: the n-th is that of the n-th parameters.
    """

    def __init__(self, runtime: Runtime, tag: str, job_type: str, job_ids: Sequence[str]) -> None:
        self.runtime = runtime
        self.tag = tag
        self.job_type = job_type
        self.job_ids = tuple(job_ids)

    @classmethod
    def found(cls, runtime: Runtime, tag: str) -> Batch:
        """The one of that tag in the store; ``BatchNotFound``."""
        text = runtime.store.noted(_name(tag))
        if text is None:
            where = runtime.settings.store_name
            raise BatchNotFound(f"{where} has no batch {tag!r}: session.map(…, tag={tag!r}) makes one.")
        return cls(runtime, tag, *_Noted.of(text))

    def __len__(self) -> int:
        return len(self.job_ids)

    def __getitem__(self, place: int) -> JobHandle:
        return JobHandle(self.runtime, self.runtime.row(self.job_ids[place]).job_id)

    def __iter__(self) -> Iterator[JobHandle]:
        return (self[place] for place in range(len(self)))

    def _rows(self) -> dict[str, JobRow]:
        """The jobs that there are: of a batch whose submission was interrupted, not all."""
        found = ((job_id, self.runtime.store.job(job_id)) for job_id in dict.fromkeys(self.job_ids))
        return {job_id: row for job_id, row in found if row is not None}

    def wait(self, timeout: float | None = None) -> Batch:
        """Wait until each job has ended, or nobody drives it; ``TimeoutError`` after *timeout* seconds.

        An interrupt ends the waiting, not the jobs.
        """
        began = time.monotonic()
        for job_id in self._rows():
            self.runtime.wait(job_id, None if timeout is None else max(timeout - (time.monotonic() - began), 0.0))
        return self

    def retry_failed(self) -> Batch:
        """`JobHandle.retry_failed` for each job that failed, or completed without tasks that failed."""
        for job_id, row in self._rows().items():
            if row.status == JobStatus.FAILED or self.runtime.let_pass(row):
                self.runtime.retry_failed(job_id)
        return self

    def resume(self) -> Batch:
        """`JobHandle.resume` for each job that was interrupted or cancelled, or has failed."""
        for job_id in self._rows():
            if self.runtime.driver(job_id) is None:
                self.runtime.resume(job_id)
        return self

    def cancel(self) -> Batch:
        """`JobHandle.cancel` for each job that has not ended."""
        for job_id in self._rows():
            self.runtime.cancel(job_id)
        return self

    def frame(self) -> pd.DataFrame:
        """One row a job, in the order of the parameters: those of them that differ, then the columns of `Session.jobs`.

        A parameter that is called like one of these is in ``parameters.name``. A job that was not submitted, since
        what submitted them was interrupted, has no ``status``.
        """
        import pandas as pd

        from geoflow.views import frames
        from geoflow.views.readable import Readable

        jobs = frames.jobs(self.runtime.store).drop_duplicates("job_id").set_index("job_id")
        rows = jobs.reindex(list(self.job_ids)).reset_index()
        given = [value if isinstance(value, dict) else {} for value in rows["parameters"]]
        differing = {
            f"parameters.{name}" if name in rows else name: frames.column([one.get(name) for one in given])
            for name in _differing(given)
        }
        return Readable(pd.concat([pd.DataFrame(differing, index=rows.index), rows], axis=1))

    def errors(self) -> pd.DataFrame:
        """What failed in all of them, put together: one row for errors that are alike, what most jobs have first.

        ``jobs``, ``tasks`` and ``attempts`` are how many have it; ``error``, ``job_id`` and ``task_id`` are the
        first's. A job that failed by no task of its own, but by its plan, say, has no ``task_id``.
        """
        import pandas as pd

        from geoflow.views.failures import folded, kinds
        from geoflow.views.readable import Readable

        alike: dict[tuple[str, ...], dict[str, Any]] = {}

        def add(job_id: str, error_type: str, category: str, error: str, tasks: int, attempts: int, task: Any) -> None:
            kind = error_type, category, folded(error)
            first = {"error_type": error_type, "error_category": category, "error": error}
            none = first | {"jobs": 0, "tasks": 0, "attempts": 0, "job_id": job_id, "task_id": task}
            told = alike.setdefault(kind, none)
            told |= {"jobs": told["jobs"] + 1, "tasks": told["tasks"] + tasks, "attempts": told["attempts"] + attempts}

        with self.runtime.store.reading() as connection:
            for job_id, row in self._rows().items():
                for kind in (found := kinds(connection, job_id)):
                    about = (kind.error_type, kind.error_category, kind.error)
                    add(job_id, *about, kind.tasks, kind.attempts, kind.task_id)
                if row.status == JobStatus.FAILED and not found:
                    add(job_id, "", "", row.error or "", 0, 0, None)
        names = ["jobs", "tasks", "attempts", "error_type", "error", "error_category", "job_id", "task_id"]
        types = dict.fromkeys(names[:3], "int64") | dict.fromkeys(names[3:], "string")
        most_first = sorted(alike.values(), key=lambda told: -told["jobs"])
        return Readable(pd.DataFrame(most_first, columns=names).astype(types))

    # Drawing

    def __repr__(self) -> str:
        return f"<batch {shorten(self.tag, 40)}: {count(len(self), 'job')} of {self.job_type}: {self._outcome()}>"

    def __str__(self) -> str:
        heads, rows, more = self._table()
        lines = aligned([heads, *rows], 80, longest=200)
        return "\n".join([repr(self)[1:-1], *(fit(each.rstrip(), 80) for each in lines), *filter(None, [more])])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self) if len(printer.stack) > 1 else str(self))

    def _repr_html_(self) -> str:
        heads, rows, more = self._table()
        drawn = table(heads, ((state(row[0]) if row[0] != _NO_JOB else row[0], *row[1:]) for row in rows))
        said = f"{count(len(self), 'job')} of {self.job_type}: {self._outcome()}"
        name = f"Batch {shorten(self.tag, 60)}"
        return str(element(name, (title(name, 3), line(said), Html(drawn), line(more, "gf-faint"))))

    def _outcome(self) -> str:
        rows = self._rows()
        states = Counter(str(row.status) if (row := rows.get(job_id)) else _NO_JOB for job_id in self.job_ids)
        return ", ".join(f"{number:,} {name}" for name, number in states.items())

    def _table(self) -> tuple[list[str], list[list[str]], str]:
        """Heads, and a row a job in words, masked; and that there are more."""
        secrets = self.runtime.settings.secrets
        frame = self.frame()
        names = [name for name in frame if name not in frame.columns[frame.columns.get_loc("job_id") :]]
        told = frame.to_dict("records")
        rows = [
            [
                _NO_JOB if not isinstance(job["status"], str) else str(job["status"]),
                str(job["job_id"])[:8],
                *(shorten(str(value), 40) for value in mask({name: job[name] for name in names}, secrets).values()),
                *_progress(job),
                shorten(safe(_reason(job["error"]), secrets), 100),
            ]
            for job in islice(told, _SHOWN)
        ]
        more = f"… and {len(told) - _SHOWN:,} more: batch.frame() has all." if len(told) > _SHOWN else ""
        return ["State", "Job", *map(str, names), "Time", "Tasks done", "Error"], rows, more


def _reason(error: Any) -> str:
    """Why a job failed, without the words that say which task it was."""
    if not isinstance(error, str):
        return ""
    return error.partition(": ")[2] if error.startswith("Task '") and ": " in error else error


def _progress(job: Mapping[Any, Any]) -> tuple[str, str]:
    """How long it ran, and how many of its tasks have completed; empty where that is not known."""
    duration = job["duration"]
    took = human_duration(duration.total_seconds()) if isinstance(duration, timedelta) else ""
    return took, f"{int(job['completed']):,}/{int(job['tasks']):,}" if isinstance(job["status"], str) else ""


def _differing(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of parameters that are not the same in all."""
    names = dict.fromkeys(name for one in given for name in one)
    return [name for name in names if len({to_json(one.get(name)) if name in one else "" for one in given}) > 1]
