"""`gf.export`: a job type of typed functions becomes a module of plain classes and functions, proved on a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from geoflow.core.models import JobStatus
from geoflow.engine.runtime import Runtime
from geoflow.errors import DefinitionError
from geoflow.jobtypes.typed import TypedJob
from geoflow.render.report import Report
from geoflow.stores.questions import latest_completed
from geoflow.stores.store import Store
from geoflow.tools.export.proof import RecordedCall, proved_on, recorded
from geoflow.tools.export.testing import test_text
from geoflow.tools.export.writing import Writer


@dataclass(frozen=True, repr=False)
class Export(Report):
    """What was written: ``module`` and ``test``; how much was ``proved`` on which run, ``job_id``; and ``notes``."""

    job_type: str
    module: Path
    test: Path
    job_id: str | None = None
    proved: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    exit_status = 0

    @property
    def title(self) -> str:
        return f"Export of {self.job_type}"

    def parts(self) -> Iterator[str]:
        same = ", ".join(what if count == 1 else f"{count:,} {what}" for what, count in self.proved.items())
        yield f"{self.job_type} is exported to {self.module}, its test to {self.test}."
        on = f"Without geoflow it did the same as job {self.job_id[:8]}: {same}." if self.job_id else ""
        yield on or "Not proved on a run."
        yield from (f"Note: {note}" for note in self.notes)

    def lines(self, width: int = 80) -> Iterator[str]:
        return self.parts()  # each whole: the paths are to be copied

    def document(self) -> dict[str, Any]:
        files = {"job_type": self.job_type, "module": str(self.module), "test": str(self.test)}
        return {**files, "job_id": self.job_id, "proved": dict(self.proved), "notes": list(self.notes)}


def write(
    job_type: TypedJob,
    folder: str | os.PathLike[str],
    run: tuple[Store, str] | None,
    runtimes: Sequence[Runtime],
    *,
    prove: bool,
    overwrite: bool,
) -> Export:
    """See `geoflow.api.export`. *run* is the store and the id of the job to prove it on; without it, the latest
    completed one that *runtimes* have."""
    if not isinstance(job_type, TypedJob):
        named = getattr(job_type, "__name__", None) or repr(job_type)
        raise DefinitionError(f"{named} is no gf.JobType: a contract class goes to production as it is.")
    name, place = job_type.name, Path(folder)
    module, test, rejected = (place / each for each in (f"{name}.py", f"test_{name}.py", f"{name}.py.rejected"))
    if there := [str(path) for path in (module, test) if path.exists() and not overwrite]:
        what, or_else = f"{' and '.join(there)} would be replaced:", ", or another folder."
        raise DefinitionError(what, python=f"say overwrite=True{or_else}", typed=f"say --overwrite{or_else}")
    writer = Writer(job_type)
    text = writer.text()
    if problems := writer.gathered.problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise DefinitionError(f"{name} cannot be exported as it is:{listed}")
    compile(text, str(module), "exec", dont_inherit=True)
    notes, calls = _notes(writer), list[RecordedCall]()
    run = run or (_latest(name, runtimes) if prove else None)
    row = run and run[0].job(run[1])
    if run and row:
        if (row.job_type, row.status) != (name, JobStatus.COMPLETED):
            raise DefinitionError(f"Job {row.job_id[:8]} ({row.job_type}, {row.status}) is no completed run of {name}.")
        if row.let_pass and any(run[0].counts(plan).get("failed") for plan in run[0].stages(row.job_key)):
            what = f"Tasks of job {row.job_id[:8]} failed, and what they would have given is not known: run them again,"
            raise DefinitionError(what, python="with retry_failed().", typed=f"with geoflow retry {row.job_id[:8]}.")
        calls = recorded(run[0], row, job_type.contract())
    elif prove:
        notes.append("it was not proved, as there is no completed run: run it, then export it with job=.")
    place.mkdir(parents=True, exist_ok=True)
    proved: dict[str, int] = {}
    if row and prove:
        try:
            proved = proved_on(name, text, calls)
        except DefinitionError as exc:
            rejected.write_text(text, "utf-8")
            raise DefinitionError(
                f"{name} was exported, but does not do what job {row.job_id[:8]} did:\n{exc}\nThe module is left "
                f'as {rejected}. Where the code has changed since, run the job again with on_existing="rerun"; what '
                "differs from run to run (a clock, chance, files) cannot be proved: prove=False leaves it out."
            ) from None
    package = "." if (place / "__init__.py").exists() else ""
    test.write_text(test_text(name, package, calls, notes), "utf-8")
    module.write_text(text, "utf-8")
    rejected.unlink(missing_ok=True)
    return Export(name, module, test, row.job_id if row and proved else None, proved, tuple(notes))


def _latest(name: str, runtimes: Sequence[Runtime]) -> tuple[Store, str] | None:
    """The latest completed run in the first of *runtimes* that has one; no store is made for that."""
    for store in [runtime.store for runtime in runtimes if runtime.has_store]:
        with store.reading() as connection:
            job_id = latest_completed(connection, name)
        if job_id is not None:
            return store, job_id
    return None


def _notes(writer: Writer) -> list[str]:
    files = [f"{module} ({path})" for module, path in writer.gathered.files.items()]
    return [
        *writer.gathered.notes,
        *([f"these modules of yours go along: {', '.join(files)}."] if files else []),
        *(
            f"{step.name} knows its items by their place, but production sorts earlier results as text (0, 1, 10, 2): "
            "say key=."
            for before, step in pairwise(writer.steps)
            if before.kind == step.kind == "each" and step.key is None
        ),
    ]
