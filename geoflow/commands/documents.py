"""What each verb prints with ``--json``, as types: their JSON Schema is made of these, and so is docs/json.md.

Outputs are not made of these types, but held to them by a test. Rows have the columns that frames and SQL have, each of
which means the same wherever it stands; so they are made of the names that these are read by.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, TypeAdapter, create_model

from geoflow.core.models import JobStatus, Receipt
from geoflow.stores.columns import COLUMNS
from geoflow.support.logs import FIELDS
from geoflow.tools.bundle.told import Told
from geoflow.views import rows

_SECONDS = "seconds"
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]  # ISO 8601, in UTC
_KINDS: dict[str, Any] = {
    "text": str,
    "json": Any,
    "time": Time,
    "span": Annotated[float, Field(description=_SECONDS)],
    "number": float,
    "integer": int,
    "count": int,
    "truth": bool,
    "flag": bool,
}
# Of a row that is sound these are never null.
_THERE = {
    *("job_id", "job_type", "status", "task_id", "task_type", "stage_name", "parallelism", "outcome", "event"),
    *("created_at", "happened_at", "session", "host"),
}
_SAYS = {
    "attempt": "which execution of the task, from 1",
    "attempts": "how often it was executed",
    "backoff": "seconds that it waited before this attempt",
    "cause": "the exception that began it, in one line",
    "code": "the version of its handler",
    "cpu": "seconds of a processor",
    "error_category": "permanent, transient, business, unknown, contract, lost, timeout or memory",
    "failed": "how many tasks have failed",
    "host": "the machine of the process that did it",
    "inputs": "what it was given",
    "metadata": "what the plan said of it",
    "not_before": "when it may be tried again",
    "outcome": "completed, failed, lost, cancelled or interrupted",
    "output": "what it printed",
    "parameters": "what it was given, masked",
    "peak_memory": "bytes of its process while its chunk ran",
    "pid": "the number of its process",
    "result": "what it returned",
    "retryable": "whether such a failure is tried again",
    "reused_from": "the id of the job whose result it has taken over",
    "slot": "the place of its worker",
    "source": "where its code came from",
    "stage": "the number of its stage, from 1",
    "stale": "whether it completed with older code than that of now",
    "status": "queued, processing, completed, failed or cancelled",
    "superseded": "whether a rerun has set it aside",
    "task_index": "its place among the tasks of its stage, from 0",
    "warnings": "how many of Python's its last attempt has shown",
    "with_errors": "whether it completed without tasks that failed, or without its own result",
}


def _object(name: str, says: str, plain: str, *, exact: bool = True, **more: Any) -> Any:
    """An object with these fields, and, where it is *exact*, no others.

    *plain* ones are written ``name kind``, with ``?`` where they may be null, or, of what may be anything, missing; of
    *more* each has a kind, or a kind and what is said of it.
    """
    made: dict[str, Any] = {}
    for field in filter(None, plain.split(", ")):
        called, kind = field.split(" ")
        of = _KINDS[kind.removesuffix("?")]
        made[called] = (Any, None) if kind == "json?" else (of | None if kind.endswith("?") else of, Field())
    for called, kind in more.items():
        of, said = kind if isinstance(kind, tuple) else (kind, None)
        made[called] = (of, Field(description=said))
    config = ConfigDict(extra="forbid" if exact else "allow", json_schema_extra={"description": says} if says else None)
    return create_model(name, __config__=config, **made)


def _many(kind: Any) -> Any:
    return list[kind]


def _of(kind: str, name: str, there: set[str]) -> Any:
    known = _KINDS[kind]
    never_empty = name in there or kind in ("count", "flag")
    return known if never_empty or known is Any else known | None


def _row(
    title: str, names: list[str], kinds: dict[str, str], there: set[str] = _THERE, *, exact: bool = True, **more: Any
) -> Any:
    fields = {name: _of(kinds.get(name, "text"), name, there) for name in names} | more
    return _object(title, "", "", exact=exact, **{name: (kind, _SAYS.get(name)) for name, kind in fields.items()})


JobRow = _row("JobRow", rows.JOBS, COLUMNS, with_errors=bool)
StageRow = _row("StageRow", rows.STAGES, COLUMNS | dict.fromkeys(("queued", "processing", "cancelled"), "count"))
_TASK = COLUMNS | {"stage": "count"}
TaskRow = _row("TaskRow", rows.TASKS, _TASK, reused_from=str | None, warnings=int, stale=bool | None)
AttemptRow = _row("AttemptRow", rows.ATTEMPTS, COLUMNS)
ErrorRow = _row("ErrorRow", rows.ERRORS, COLUMNS | {"cause": "text"})
EventRow = _row("EventRow", rows.HISTORY, COLUMNS)
LogLine = _row("LogLine", list(FIELDS), dict(FIELDS), set(), exact=False)  # handlers' lines have fields of their own
DumpedTask = _row("DumpedTask", rows.TASKS, _TASK, superseded=bool)
Progress = _object("Progress", "What a task has told of itself.", "done number, total number?, text text")
Running = _object(
    "Running",
    "A task that runs now.",
    "task_id text, stage integer",
    seconds=(float, "for how long it has run"),
    memory=(int | None, "bytes of its process"),
    mean=(float | None, "seconds that others of its stage took"),
    progress=Progress | None,
    printed=(str, "the end of what it has printed"),
    overdue=(bool, "whether it runs much longer than others did"),
)
Job = _object(
    "Job",
    "A job.",
    "job_id text, job_type text, total_stages integer, error text?, created_at time, started_at time?, ended_at time?",
    status=(JobStatus, "as it is stored"),
    state=(str, "as it is shown: also interrupted, or completed with errors"),
    with_errors=(bool, _SAYS["with_errors"]),
    failed=(int, _SAYS["failed"]),
    driver=(str | None, "who drives it now"),
    stage=(int, "the number of the stage that it is at, from 1"),
    parameters=(dict[str, Any], _SAYS["parameters"]),
    result=(Any, "what finalize returned"),
    duration=(float | None, _SECONDS),
    stages=_many(StageRow),
    running=(_many(Running), "what its workers are at"),
    source=(str | None, _SAYS["source"]),
    receipt=(Receipt | None, "what was found, of a verb that submits"),
)
Detached = _object(
    "Detached", "With ``--detach``: which job, and the process that runs it.", "job_id text, pid integer"
)
PlannedStage = _object(
    "PlannedStage",
    "",
    "stage integer, stage_name text, task_type text, parallelism text",
    tasks=(int | None, "how many, where that is known before it runs"),
)
PlannedTask = _object(
    "PlannedTask",
    "",
    "task_id text, task_type text, task_index integer, parameters json, metadata json",
    bytes=(int, "of its parameters as JSON"),
)
Plan = _object(
    "Plan",
    "What a submission would start.",
    "job_type text, job_id text",
    exists=(JobStatus | None, "the status of a job of this id that is there"),
    parameters=dict[str, Any],
    stages=_many(PlannedStage),
    tasks=(_many(PlannedTask), "of the first stage"),
)
ProbedStage = _object(
    "ProbedStage",
    "",
    "stage integer, stage_name text, task_type text, parallelism text, tasks_run integer, failed integer, "
    "tasks_low number?, tasks_expected number?, tasks_high number?, failing_low number?, failing number?, "
    "failing_high number?, p90 number?, max number?",
    median=(float | None, "seconds of a task that completed"),
)
Forecast = _object(
    "Forecast",
    "",
    "workers integer, likely number?, high number?",
    low=(float | None, "seconds of the whole job"),
    memory=(float | None, "bytes of all workers together"),
)
Probe = _object(
    "Probe",
    "What a few tasks took, and all will.",
    "job_type text",
    job=(str, "the id of the probe's own job"),
    stages=_many(ProbedStage),
    forecast=_many(Forecast),
    memory=(int | None, "the most bytes that a worker had"),
    notes=list[str],
)
Output = _object("Output", "What a task has printed.", "job_id text, task_id text, status text, output text?")
ComparedParameter = _object("ComparedParameter", "", "parameter text, a json, b json")
ComparedCode = _object("ComparedCode", "", "stage_name text, task_type text, code_a text?, code_b text?, diff text?")
ComparedFile = _object("ComparedFile", "", "file text, differs text")
ComparedStage = _object(
    "ComparedStage",
    "",
    "stage_name text, tasks_a integer?, tasks_b integer?, completed_a integer?, completed_b integer?, "
    "failed_a integer?, failed_b integer?, seconds_a number?, seconds_b number?, cpu_a number?, cpu_b "
    "number?, peak_memory_a integer?, peak_memory_b integer?",
)
ComparedTask = _object(
    "ComparedTask",
    "",
    "stage_name text, key text?, status_a text?, status_b text?, a json, b json, duration_a number?, "
    "duration_b number?, task_id_a text?, task_id_b text?",
    outcome=(str, "same, status, differs, only_a or only_b"),
    path=(str | None, "where what they gave differs first"),
)
Comparison = _object(
    "Comparison",
    "What differs between two jobs.",
    "a text, b text, paired text",
    counts=(dict[str, int], "pairs of tasks by outcome"),
    parameters=_many(ComparedParameter),
    code=_many(ComparedCode),
    files=_many(ComparedFile),
    stages=_many(ComparedStage),
    tasks=_many(ComparedTask),
)
Finding = _object(
    "Finding",
    "",
    "code text, where text?, job_type text, what text, why text, remedy text",
    severity=(str, "error, warning or note"),
)
Check = _object(
    "Check",
    "What is wrong with a job type.",
    "",
    ok=(bool, "whether there is no error"),
    job_types=list[str],
    findings=_many(Finding),
)
Diagnosis = _object("Diagnosis", "", "name text, text text, remedy text", status=(str, "ok, warning or problem"))
KnownParameter = _object("KnownParameter", "", "name text, kind text, required truth, help text?, default json?")
KnownType = _object(
    "KnownType",
    "",
    "job_type text, built_in truth, description text",
    stages=list[str],
    parameters=(_many(KnownParameter) | None, "as far as it declares them"),
)
Setting = _object(
    "Setting",
    "",
    "setting text, value json",
    **cast(Any, {"from": (str, "argument, variable, file or default")}),
)
PrunedJob = _object(
    "PrunedJob",
    "",
    "job_id text, job_type text, state text, created_at time, ended_at time?, tasks integer",
    saved=(int | None, "bytes that it has saved as files"),
)
Pruned = _object(
    "Pruned",
    "Which jobs are meant, or were removed.",
    "files integer, file_bytes integer, store_bytes_before integer, store_bytes_after integer",
    confirmed=(bool, "whether they were removed"),
    jobs=_many(PrunedJob),
    left=(list[str], "the ids of those that were left after all"),
    notes=list[str],
)
SizedFile = _object("SizedFile", "", "what text, place text, bytes integer")
SizedJob = _object(
    "SizedJob",
    "",
    "job_id text, job_type text, tasks integer, parameters integer, results integer, printed integer, saved integer",
)
Sizes = _object(
    "Sizes",
    "Bytes of files and jobs.",
    "free integer, saved_by_removed_jobs integer",
    files=_many(SizedFile),
    jobs=_many(SizedJob),
)
Dump = _object(
    "Dump",
    "All that the store has of a job.",
    "geoflow text, format integer",
    job=JobRow,
    stages=_many(StageRow),
    tasks=_many(DumpedTask),
    attempts=_many(AttemptRow),
)
DumpedTo = _object("DumpedTo", "With a file: where it is.", "file text")
FileRow = _object("FileRow", "", "what text, file text, bytes integer")
Copied = _object("Copied", "", "table text, rows integer")
Export = _object(
    "Export",
    "What was written, and proved.",
    "job_type text, module text, test text",
    job_id=(str | None, "the run that it was proved on"),
    proved=dict[str, int],
    notes=list[str],
)
Ran = _object(
    "Ran",
    "With ``--run``: what came of a bundle here.",
    "name text, returned json, error_type text?, error text?, traceback text?, output text, seconds number",
    then=(str, "what came of it where it was made, in words"),
    same=(bool, "whether the same came of it"),
)

DOCUMENTS: dict[str, Any] = {
    "run": Job | Detached,
    **dict.fromkeys(("status", "watch", "retry", "rerun", "refinalize", "cancel"), Job),
    "resume": Job | _many(Job),
    "plan": Plan,
    "probe": Probe,
    "jobs": _many(JobRow),
    "tasks": _many(TaskRow),
    "errors": _many(ErrorRow),
    "logs": _many(LogLine),
    "history": _many(EventRow),
    "output": Output,
    "debug": Any,
    "compare": Comparison,
    "sql": list[dict[str, Any]],
    "export": Export,
    "check": Check,
    "types": _many(KnownType),
    "config": _many(Setting),
    "doctor": _many(Diagnosis),
    "convert": _many(Copied),
    "backup": _many(FileRow),
    "restore": _many(FileRow),
    "prune": Pruned,
    "reset": Pruned,
    "dump": Dump | DumpedTo,
    "size": Sizes,
    "bundle": Told,
    "unbundle": Told | Ran,
}


def schema(verb: str) -> dict[str, Any]:
    """The JSON Schema of what *verb* prints with ``--json``; a field that it does not name is not there."""
    made = TypeAdapter(DOCUMENTS[verb]).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"geoflow {verb} --json",
        **{name: value for name, value in made.items() if name != "title"},
    }
