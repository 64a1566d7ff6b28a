"""`gf.export`: a job type of typed functions becomes a module of plain classes and functions, proved on a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from geoflow.core.models import JobStatus
from geoflow.errors import DefinitionError
from geoflow.jobtypes.typed import JobType
from geoflow.tools.export.proof import prove as proved_on
from geoflow.tools.export.proof import recorded
from geoflow.tools.export.testing import test_text
from geoflow.tools.export.writing import Writer

if TYPE_CHECKING:
    from geoflow.job_handle import JobHandle
    from geoflow.session import Session


@dataclass(frozen=True)
class Export:
    """What was written: ``module`` and ``test``; how much was ``proved`` on which run, ``job_id``; and ``notes``."""

    job_type: str
    module: Path
    test: Path
    job_id: str | None = None
    proved: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    exit_status: ClassVar[int] = 0  # of the verb

    def lines(self, width: int = 0) -> list[str]:
        """What it says of itself, a line each."""
        same = ", ".join(what if count == 1 else f"{count:,} {what}" for what, count in self.proved.items())
        return [
            f"{self.job_type} is exported to {self.module}, its test to {self.test}.",
            f"Without geoflow it did the same as job {self.job_id[:8]}: {same}."
            if self.job_id
            else "Not proved on a run.",
            *(f"Note: {note}" for note in self.notes),
        ]

    def document(self) -> dict[str, Any]:
        """For machines."""
        files = {"job_type": self.job_type, "module": str(self.module), "test": str(self.test)}
        return {**files, "job_id": self.job_id, "proved": dict(self.proved), "notes": list(self.notes)}

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def export(
    job_type: JobType,
    folder: str | os.PathLike[str],
    *,
    job: JobHandle | None = None,
    session: Session | None = None,
    prove: bool = True,
    overwrite: bool = False,
) -> Export:
    """Write *job_type* to ``folder/<name>.py``, as a module that production takes, and a test of it beside that.

    The module has the class of the contract, ``ALL_JOBS`` and ``ALL_HANDLERS``, and needs nothing of geoflow. It is
    then *proved* on *job*, a completed run (without one, the latest completed one of its *session*, or of the sessions
    that are open): in a fresh process without geoflow it has to give the same job id, the same task ids, the same
    results of up to 20 tasks of each stage, which run again for that, and the same result of finalize. ``prove=False``
    leaves that out.

    Raises ``DefinitionError`` with all that cannot be exported, or with what differs; the module is then left beside
    as ``<name>.py.rejected``. Files that are there are kept, and refused, unless *overwrite*.
    """
    if not isinstance(job_type, JobType):
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
    notes, contract = _notes(writer), job_type.contract()
    job = job if job is not None or not prove else _latest(name, session)
    if job is not None and (job.job_type, job.status) != (name, JobStatus.COMPLETED):
        raise DefinitionError(f"Job {job.id[:8]} ({job.job_type}, {job.status}) is no completed run of {name}.")
    calls = recorded(job, contract) if job is not None else []
    if prove and job is None:
        notes.append("it was not proved, as there is no completed run: run it, then export it with job=.")
    place.mkdir(parents=True, exist_ok=True)
    proved: dict[str, int] = {}
    if job is not None and prove:
        try:
            proved = proved_on(name, text, calls)
        except DefinitionError as exc:
            rejected.write_text(text, "utf-8")
            raise DefinitionError(
                f"{name} was exported, but does not do what job {job.id[:8]} did:\n{exc}\nThe module is left "
                f'as {rejected}. Where the code has changed since, run the job again with on_existing="rerun"; what '
                "differs from run to run (a clock, chance, files) cannot be proved: prove=False leaves it out."
            ) from None
    package = "." if (place / "__init__.py").exists() else ""
    test.write_text(test_text(name, package, calls, notes), "utf-8")
    module.write_text(text, "utf-8")
    rejected.unlink(missing_ok=True)
    return Export(name, module, test, job.id if job and proved else None, proved, tuple(notes))


def _latest(name: str, session: Session | None) -> JobHandle | None:
    """The latest completed run in *session*, or in the sessions that are open; no store is made for that."""
    from geoflow.api import opened

    for one in [session] if session is not None else opened():
        if "store" in one.runtime.__dict__ or os.path.exists(one.settings.store):
            rows = [row for row in one.store.jobs() if (row.job_type, row.status) == (name, JobStatus.COMPLETED)]
            if rows:
                return one.job(rows[-1].job_id)
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
