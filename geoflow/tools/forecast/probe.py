"""Run a few tasks of each stage as a job of their own, and say from these how long all of them will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from geoflow.core.models import Receipt
from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError
from geoflow.jobtypes.contract import DefinesJob, Registered
from geoflow.jobtypes.parameters import job_id_of, validated
from geoflow.notebook import progress
from geoflow.render.report import Report, Table, table
from geoflow.stores.store import Store
from geoflow.support.jsonable import from_json
from geoflow.support.masking import mask_text
from geoflow.support.processors import usable
from geoflow.support.text import count, human_bytes, human_duration
from geoflow.tools.forecast.sampling import MARK, SampledType
from geoflow.tools.forecast.simulation import Measured, Ran, Range, failures, forecast, grown, measured

if TYPE_CHECKING:
    import pandas as pd


_Job = TypeVar("_Job", bound=Any)  # what the job is known by where the probe was asked for
_EXPECTED, _FAILING = ("tasks_low", "tasks_expected", "tasks_high"), ("failing_low", "failing", "failing_high")
_TIMES = ("median", "p90", "max")


@dataclass(frozen=True, repr=False)
class Probe(Report, Generic[_Job]):
    """What a few tasks of each stage took, and what all of them will take.

    ``job`` is the probe's own. ``stages`` has a row a stage: how many tasks ran and are expected, and between which
    numbers; the seconds that those which completed took, all attempts of one together; how many failed, and will fail
    (an interval of 95 %). What is missing was not reached. ``forecast`` has a row for each number of workers: ``low``,
    ``likely`` and ``high`` seconds, and the bytes of ``memory`` that they need together. ``memory`` is the most that
    one worker had. The first of ``notes`` says it all in a sentence.
    """

    job: _Job
    job_type: str
    stages: pd.DataFrame
    forecast: pd.DataFrame
    memory: int | None
    notes: tuple[str, ...]
    exit_status: int  # for a shell: 1 when the probe's job did not complete
    secrets: tuple[str, ...]

    @property
    def failures(self) -> pd.DataFrame:
        """Of each stage that ran, how many tasks failed, and how many of all will."""
        return self.stages.loc[self.stages["tasks_run"] > 0, ["stage", "tasks_run", "failed", *_FAILING]]

    @property
    def title(self) -> str:
        return f"Probe of {self.job_type}: job {self.job.id[:8]}"

    def parts(self) -> list[str | Table]:
        numbers, times = dict.fromkeys(("tasks_run", "tasks_expected", "failed"), "{:,.0f}".format), human_duration
        stages = table(self.stages, stage=str, stage_name=str, **numbers, **dict.fromkeys(_TIMES, times))
        workers = table(self.forecast, workers=str, low=times, likely=times, high=times, memory=human_bytes)
        return [self.notes[0], stages, *([workers] if workers[1:] else []), *self.notes[1:]]


def probe(
    runtime: Runtime,
    job_type: str | type | DefinesJob,
    parameters: dict[str, Any],
    items: int,
    workers: Any,
    seed: int,
    handle: Callable[[Receipt], _Job],
) -> Probe[_Job]:
    """See `Session.probe`; *handle* makes what the probe's own job is known by of its receipt."""
    import pandas as pd

    from geoflow.views import frames

    own, processors = runtime.executor.slots, usable()
    ladder = [own, *(2**power for power in range((4 * processors).bit_length()))] if workers is None else workers
    numbers = sorted({ladder} if isinstance(ladder, int) else {*ladder})
    for name, said in (("items", [items]), ("workers", numbers)):
        if not said or not all(isinstance(number, int) and number > 0 for number in said):
            raise ParameterError(f"{name} cannot be {said}: say whole numbers from 1 on.")
    registered, secrets = runtime.registered(job_type), runtime.settings.secrets
    job_id_of(registered, validated(registered, parameters, secrets))  # what is wrong is told of the type itself
    sampled = SampledType(runtime.registry, registered.name, items, seed)
    receipt = runtime.submit(sampled, parameters, "rerun", here=True)
    job_id = receipt.job_id
    try:
        progress.follow(runtime, job_id)
    except KeyboardInterrupt:
        runtime.cancel(job_id)  # a measurement that was broken off is not one to go on with
        raise
    attempts = frames.attempts(runtime.store, job_id)
    rows, known, notes = _read(runtime.store, job_id, attempts, registered)
    ranges = dict(zip(numbers, forecast(known, numbers, processors, seed=seed) if known else (), strict=False))
    peak = attempts.query("not superseded")["peak_memory"].max()
    memory = None if pd.isna(peak) else int(peak)
    of_workers = [(number, *seconds, memory and number * memory) for number, seconds in ranges.items()]
    frame = pd.DataFrame(of_workers, columns=["workers", *Range._fields, "memory"])
    stages = pd.DataFrame(rows).astype(dict.fromkeys((*_EXPECTED, *_FAILING, *_TIMES), "float64"))
    job, missing = runtime.row(job_id), next((row for row in rows if row["tasks_expected"] is None), None)
    result = from_json(job.result or "{}") or {}
    if job.status == "completed" and result.get("fallback"):
        notes.append(f"Finalize failed: {result['error_type']}: {mask_text(result['finalization_error'])}")
    if missing is not None:
        name = f"Stage {missing['stage']} ({missing['stage_name']})"
        why = mask_text(job.error or f"The job is {job.status}.")
        notes.append(why if why.startswith(name) else f"{name} was not reached. {why}")
    headline = "Nothing ran that could be measured."
    if ranges:
        number = own if own in ranges else numbers[0]
        low, likely, high = map(human_duration, ranges[number])
        headline = f"About {likely} with {count(number, 'worker')} ({low} to {high})"
        headline += f", {human_bytes(memory)} a worker" if memory else ""
        headline += f", without stage {missing['stage']} and what follows it." if missing else "."
    about = (headline, *notes), int(job.status != "completed"), secrets
    return Probe(handle(receipt), registered.name, stages, frame, memory, *about)


def _read(
    store: Store, job_id: str, attempts: pd.DataFrame, registered: Registered
) -> tuple[list[dict[str, Any]], list[Measured], list[str]]:
    """What the store has of the probe: the rows of its stages, what was measured of those that ran, and notes."""
    from geoflow.views import frames

    tasks, planned = frames.tasks(store, job_id), frames.stages(store, job_id)["planned_at"].notna()
    attempts = attempts[~attempts["superseded"] & attempts["started_at"].notna()].sort_values("started_at")
    attempts = attempts.assign(seconds=attempts["duration"].dt.total_seconds(), cpus=attempts["cpu"].dt.total_seconds())
    rows: list[dict[str, Any]] = []
    known: list[Measured] = []
    notes: list[str] = []
    before, results = Range(0, 0, 0), 0
    for stage in registered.stages:
        row: dict[str, Any] = {"stage": stage.number, "stage_name": stage.name, "task_type": stage.task_type}
        row |= {"parallelism": stage.parallelism, "tasks_run": 0, "failed": 0}
        row |= dict.fromkeys((*_EXPECTED, *_FAILING, *_TIMES))
        rows.append(row)
        if not planned[stage.number - 1]:
            continue
        tried = attempts[attempts["stage"] == stage.number]
        ran, plan = _ran(tasks[tasks["stage"] == stage.number], tried)
        about, failed = f"Stage {stage.number} ({stage.name})", sum(task.failed for task in ran)
        expected = grown(plan.get("planned", 0), plan.get("results", 0), plan.get("alone", ()), before)
        growth = Range(1, 1, 1)
        if stage.is_fan_in:
            expected, growth = growth, Range(1, *(max(1, number / max(results, 1)) for number in before[1:]))
            if growth.high > 1:
                few = f"was measured on {count(results, 'result')} of {_counted(before)}"
                notes.append(f"{about} {few}: the forecast has it take longer in proportion.")
        elif expected.low < expected.high:
            why = "an estimate, since it depends on all results before."
            notes.append(f"{about} has {_counted(expected)} tasks: {why}")
        row |= dict(zip(_EXPECTED, expected, strict=True))
        if ran:
            failing = failures(failed, len(ran), expected)
            row |= {"tasks_run": len(ran), "failed": failed, **dict(zip(_FAILING, failing, strict=True)), **_times(ran)}
            more = {"planning": plan.get("seconds", 0.0), "growth": growth, "largest_first": stage.order == "largest"}
            known.append(measured(ran, expected, plan.get("way", 0.0))._replace(workers=stage.workers, **more))
            if failed:
                error = mask_text(str(tried.loc[tried["outcome"] == "failed", "error"].iloc[0]))
                expect = f"expect {_counted(failing)} of {_counted(expected)} to fail; one is enough to fail the job"
                notes.append(f"{about}: {failed} of {len(ran)} failed: {error}. In the whole, {expect}.")
            if (start := known[-1].start) > 0.05:
                notes.append(f"{about}: the first task in each worker takes {human_duration(start)} longer.")
        before, results = expected, len(ran) - failed
    return rows, known, notes


def _ran(tasks: pd.DataFrame, attempts: pd.DataFrame) -> tuple[list[Ran], dict[str, Any]]:
    """The tasks of one stage that ran, and what its plan noted of the whole."""
    notes = [(metadata or {}).get(MARK, {}) for metadata in tasks["metadata"]]
    spent: dict[Any, Any] = attempts.groupby("task_id")[["seconds", "cpus"]].sum().T.to_dict("list")
    first = {*attempts.drop_duplicates("pid")["task_id"]}  # it may have had to import what the others found there
    ran = [
        Ran(*spent[name])._replace(first=name in first, largest=note.get("largest", False), failed=status == "failed")
        for name, status, note in zip(tasks["task_id"], tasks["status"], notes, strict=True)
        if name in spent
    ]
    return ran, notes[0] if notes else {}


def _times(ran: Sequence[Ran]) -> dict[str, float]:
    """How long tasks took that completed."""
    import pandas as pd

    seconds = pd.Series([task.seconds for task in ran if not task.failed], dtype=float)
    return dict(zip(_TIMES, seconds.quantile([0.5, 0.9, 1.0]), strict=True))


def _counted(number: Sequence[float]) -> str:
    low, likely, high = (f"{value:,.0f}" for value in number)
    return likely if low == high else f"about {likely} ({low} to {high})"
