"""Many jobs as one: those of one type that were submitted together under a tag, one row a job."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from geoflow.core.models import JobStatus
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import OnExisting, Runtime
from geoflow.errors import GeoflowError, ParameterError, StoreError
from geoflow.job_handle import JobHandle
from geoflow.jobtypes.contract import DefinesJob, Registered
from geoflow.jobtypes.parameters import by_name, job_id_of, validated
from geoflow.notebook import progress
from geoflow.notebook.live import Drawn
from geoflow.notebook.outputs import cell
from geoflow.render.markup import Html, element, line, state, table, title
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.masking import mask, safe
from geoflow.support.text import aligned, count, fit, human_duration, shorten
from geoflow.views.model import JobView
from geoflow.views.snapshot import outlined

if TYPE_CHECKING:
    import pandas as pd

_SHOWN, _REFUSED = 100, 5
_Outlines = dict[str, tuple[JobRow | None, JobView | None]]
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
        self._shown_in: object = None  # the cell that has shown it to its end

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

        A notebook shows it live meanwhile, a row a job. An interrupt ends the waiting, not the jobs.
        """
        began = time.monotonic()
        with progress.live(self._drawn, self.runtime.settings.display, waits=True) as is_shown:
            self._shown_in = cell() if is_shown else None
            for job_id in self._rows():
                self.runtime.wait(job_id, None if timeout is None else max(timeout - (time.monotonic() - began), 0.0))
        return self

    def watch(self) -> None:
        """Show it live, a row a job, and return at once; what it shows in the end stays in a saved notebook.

        Where there is no notebook, print it as it is now.
        """
        with progress.live(self._drawn, self.runtime.settings.display, waits=False) as is_shown:
            if not is_shown:
                print(self)

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
        return f"<batch {shorten(self.tag, 40)}: {self._said(self._outlines())}>"

    def __str__(self) -> str:
        return self._text(self._outlines())

    def _text(self, outlines: _Outlines) -> str:
        heads, rows, more = self._table(outlines)
        lines = aligned([heads, *rows], 80, longest=200)
        return "\n".join(
            [
                f"batch {shorten(self.tag, 40)}: {self._said(outlines)}",
                *(fit(each.rstrip(), 80) for each in lines),
                *filter(None, [more]),
            ]
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self) if len(printer.stack) > 1 else str(self))

    def _repr_html_(self) -> str:
        outlines = self._outlines()
        if self._shown_in is not None and self._shown_in == cell():
            return str(element(f"Batch {shorten(self.tag, 60)}", [line(f"{self._said(outlines)}; see above")]))
        return self._html(outlines)

    def _html(self, outlines: _Outlines) -> str:
        heads, rows, more = self._table(outlines)
        drawn = table(heads, ((state(row[0]) if row[0] != _NO_JOB else row[0], *row[1:]) for row in rows))
        name = f"Batch {shorten(self.tag, 60)}"
        parts = title(name, 3), line(self._said(outlines)), Html(drawn), line(more, "gf-faint")
        return str(element(name, parts))

    def _drawn(self) -> Drawn:
        """It as it is now, and whether nobody drives any of its jobs."""
        if self.runtime.open_store is None:  # the session was closed, and is not opened to look at it
            return Drawn(None, is_over=True)
        outlines = self._outlines()
        bundle = {"text/plain": self._text(outlines), "text/html": self._html(outlines)}
        return Drawn(bundle, all(view is None or view.driver is None for _, view in outlines.values()))

    def _outlines(self) -> _Outlines:
        """The row and the outline of each job; None of one that was not submitted."""
        store, now, rows = self.runtime.store, self.runtime.clock.now(), self._rows()
        return {
            job_id: (row, outlined(store, row, now)) if (row := rows.get(job_id)) else (None, None)
            for job_id in self.job_ids
        }

    def _said(self, outlines: _Outlines) -> str:
        """How many jobs there are, and in which states, those first in which the first ones are."""
        states = Counter(_NO_JOB if (view := outlines[job_id][1]) is None else view.state for job_id in self.job_ids)
        told = ", ".join(f"{number:,} {name}" for name, number in states.items())
        return f"{count(len(self), 'job')} of {self.job_type}: {told}"

    def _table(self, outlines: _Outlines) -> tuple[list[str], list[list[str]], str]:
        """Heads, and a row a job in words, masked; and that there are more."""
        secrets = self.runtime.settings.secrets
        given = {job_id: from_json(row.parameters) if row else {} for job_id, (row, _) in outlines.items()}
        names = _differing([given[job_id] for job_id in self.job_ids])
        rows = []
        for job_id in self.job_ids[:_SHOWN]:
            row, view = outlines[job_id]
            masked = mask({name: given[job_id].get(name) for name in names}, secrets).values()
            told = ["" if value is None else shorten(str(value), 40) for value in masked]
            how = _NO_JOB if view is None else view.state
            error = _reason(row.error if row is not None else None)
            rows.append([how, job_id[:8], *told, *_progress(view), shorten(safe(error, secrets), 100)])
        left = len(self) - len(rows)
        more = f"… and {left:,} more: batch.frame() has all." if left else ""
        return ["State", "Job", *map(str, names), "Time", "Tasks done", "Error"], rows, more


def _reason(error: Any) -> str:
    """Why a job failed, without the words that say which task it was."""
    if not isinstance(error, str):
        return ""
    return error.partition(": ")[2] if error.startswith("Task '") and ": " in error else error


def _progress(view: JobView | None) -> tuple[str, str]:
    """How long it ran, and how many of its tasks have completed; empty where that is not known."""
    if view is None:
        return "", ""
    completed = sum(stage.counts.get("completed", 0) for stage in view.stages)
    took = "" if view.elapsed is None else human_duration(view.elapsed)
    return took, f"{completed:,}/{sum(stage.tasks for stage in view.stages):,}"


def _differing(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of parameters that are not the same in all."""
    names = dict.fromkeys(name for one in given for name in one)
    return [name for name in names if len({to_json(one.get(name)) if name in one else "" for one in given}) > 1]
