"""What may be found in a job type: the catalogue of codes, what each would do in production, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from geoflow.text import cut, mask_text, plain

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: *what* it is, *where* (``"file:line"``), *why* it matters in production, and the *remedy*.

    An ``error`` keeps the job type from working; a ``warning`` is what works here, by luck or by geoflow's care, and
    may not elsewhere; a ``note`` is worth knowing.
    """

    code: str
    severity: Severity
    where: str | None
    job_type: str
    what: str
    why: str
    remedy: str


class Rule(NamedTuple):
    """What all findings of one code have in common. *title* is what the catalogue calls it."""

    severity: Severity
    title: str
    why: str
    remedy: str


def finding(code: str, job_type: str, what: str, where: str | None = None) -> Finding:
    """A finding of the catalogue; the text of users in *what* is made safe to show."""
    rule = RULES[code]
    told = cut(mask_text(plain(what)), 600)
    return Finding(code, rule.severity, where, job_type, told, rule.why, rule.remedy)


_REFUSED = "Registration refuses it there as here."
_STUCK = "The task and its job stay `processing` for ever, with no row that says why."
_FALLBACK = "The job ends `completed` with the fallback result, and what finalize should have made is lost."
_OTHER_JOB = "A submission is answered with the job, and the result, of another one."

RULES: dict[str, Rule] = {
    # What is declared
    "GF100": Rule(
        "error",
        "what was given cannot be a job type, or its handlers are no dict of functions",
        _REFUSED,
        'Register the class itself: session.register(Tiles, handlers={"tile_stats": tile_stats}).',
    ),
    "GF101": Rule(
        "error",
        "a method of the contract is missing",
        "The job fails when it comes to that method, which may be after hours of work.",
        "Write all four as @staticmethod: validate_job_parameters(params), generate_job_id(params), "
        "create_tasks_for_stage(stage, job_params, job_id, previous_results=None), finalize_job(context=None).",
    ),
    "GF102": Rule(
        "error",
        "a method is still abstract",
        "It returns None where the engine needs a value, and the job fails there.",
        "Write it in the class: @staticmethod, def NAME(...), without @abstractmethod.",
    ),
    "GF103": Rule(
        "error",
        "a method is not static",
        "The class is never instantiated: params arrives as self, and the call fails for a missing argument.",
        "Put @staticmethod above its def, and take self out of its parameters.",
    ),
    "GF104": Rule(
        "warning",
        "a method's parameters have other names than the contract's",
        "Some are passed by name: the call fails with a TypeError, and the job stays `queued`.",
        "Name them as the contract does: (params), (params), (stage, job_params, job_id, previous_results=None), "
        "(context=None).",
    ),
    "GF105": Rule(
        "error",
        "a method cannot be called as the engine calls it",
        "The call fails with a TypeError, and the job stays `queued` or `processing`.",
        "Take the contract's parameters, and make it a plain def: async code runs inside, by asyncio.run(...).",
    ),
    "GF106": Rule(
        "error", "job_type is no name", _REFUSED, 'Give the class a name of its own: job_type = "tile_stats".'
    ),
    "GF107": Rule(
        "error",
        "the key in ALL_JOBS is not the class's job_type",
        "A job is stored under one name and looked for under the other: it is accepted and never runs.",
        "Write ALL_JOBS = {Tiles.job_type: Tiles}.",
    ),
    "GF108": Rule(
        "warning",
        "a job type or task type has capitals or '-'",
        "Names are normalised on one side only: the job type or the handler is never found.",
        'Write it in lower case with "_": "tile_stats", in the class, in its plans and in ALL_HANDLERS.',
    ),
    "GF109": Rule(
        "warning",
        "there is no description",
        "Lists of job types show nothing for it.",
        'Say what the job does, in one line: description = "Elevations of a folder of tiles."',
    ),
    "GF110": Rule(
        "error",
        "stages is no list of dicts with number, name and task_type",
        _REFUSED,
        'Write stages = [{"number": 1, "name": "scan", "task_type": "scan_tiles", "parallelism": "single"}, ...].',
    ),
    "GF111": Rule(
        "error",
        "stages are not numbered 1 to n in order",
        "The engine goes from n to n + 1: it skips a stage, or ends the job before the last one.",
        'Number them by their place: "number": 1 in the first dict, 2 in the second.',
    ),
    "GF112": Rule(
        "error",
        "a stage or a plan names a task_type that has no handler",
        "The task stays `queued`, and the job never ends.",
        'Add the function to the handlers, under this very name: ALL_HANDLERS = {"tile_stats": tile_stats}.',
    ),
    "GF113": Rule(
        "error",
        "the first stage is a fan_in",
        "There are no results to aggregate: the job fails as soon as it starts.",
        'Make it "parallelism": "single", or put the stage before it that makes the results.',
    ),
    "GF114": Rule(
        "warning",
        "a stage has a parallelism that the engine does not know",
        "It is asked for its tasks as a fan_out is, whatever the word was to mean.",
        'Write "single", "fan_out" or "fan_in".',
    ),
    "GF115": Rule(
        "warning",
        "an option of a stage has a value that the engine does not know",
        "It is passed over without a word: no limit, no other number of retries.",
        'Give timeout in seconds ("timeout": 60), max_retries and workers as whole numbers, "on_failure": "stop".',
    ),
    "GF116": Rule(
        "warning",
        "total_stages is not the number of stages",
        "The job is ended after that stage, with later ones never run; or it waits for one that is not there.",
        "Leave it out, or write total_stages=len(Tiles.stages).",
    ),
    "GF117": Rule(
        "error",
        "a handler is not a plain function of one argument",
        "The call fails before the handler begins. " + _STUCK,
        "Write def tile_stats(params): ... and return a dict.",
    ),
    "GF118": Rule(
        "error",
        "a handler or the class holds what cannot travel to another process",
        "Every worker imports the file by itself: what is held there is another object in each, or none.",
        "Open or make it inside the handler, from a path or plain values in the parameters.",
    ),
    "GF119": Rule(
        "warning",
        "a handler has no __name__, as a functools.partial has none",
        "It crashes before the task is marked as running: the task stays `queued`, and the job never ends.",
        "Write a def that calls it: def tile_stats(params): return measure(params, band=1).",
    ),
    "GF120": Rule(
        "note",
        "a handler requires a context",
        "None is passed: the call fails with a TypeError, and task and job stay `processing`.",
        "If it is to run there too, write def tile_stats(params, context=None), and do without where it is None.",
    ),
    # What is written
    "GF201": Rule(
        "warning",
        "a handler catches every exception and returns success: False",
        "A wrong key and a lost connection look the same: both are retried, and the traceback is lost.",
        "Let it raise: the engine keeps the traceback and retries what may pass. Catch what you expect alone, as in "
        'except rasterio.RasterioIOError as exc: return {"success": False, "error": str(exc), "retryable": False}.',
    ),
    "GF202": Rule(
        "error",
        "a handler returns no dict with success of True or False",
        "The contract's breach is raised and logged alone. " + _STUCK,
        'Return {"success": True, "result": {...}}, or {"success": False, "error": "...", "retryable": False}.',
    ),
    "GF203": Rule(
        "warning",
        "a handler returns success: False without an error",
        "The row of the failed task has no error: nobody can tell what went wrong.",
        'Say it, with the thing that it is about: "error": f"{path} has no band {band}".',
    ),
    "GF204": Rule(
        "note",
        "a handler returns success: False without saying whether to retry",
        "It is retried three times, at 5, 10 and 20 s, also where no retry can help.",
        'Add "retryable": False for bad data, "retryable": True for what may pass.',
    ),
    "GF205": Rule(
        "error",
        "finalize reads context.job_parameters, or the context as a dict",
        "The field is called parameters, and the context is an object. " + _FALLBACK,
        'Write context.parameters["folder"].',
    ),
    "GF206": Rule(
        "error",
        "finalize treats task results as dicts",
        "They are objects, whatever older docstrings say. " + _FALLBACK,
        'Write task.status, task.success, task.task_id and task.result_data.get("result").',
    ),
    "GF207": Rule(
        "warning",
        "a name in finalize may be unbound",
        "With other results than those tried it raises UnboundLocalError. " + _FALLBACK,
        "Bind it before the if or for: summary = None.",
    ),
    "GF208": Rule(
        "warning",
        "a plan has a branch for a fan_in stage",
        "The engine makes the one task of a fan_in itself: the branch is never asked, and what it adds is not there.",
        'Take the branch out, and read params["previous_results"] and params["job_parameters"] in the handler; or '
        'make the stage "fan_out".',
    ),
    "GF209": Rule(
        "warning",
        "the parameters schema and validate_job_parameters do not know the same keys",
        "Who fills in what the schema shows is refused, or has a value passed over without a word.",
        "Give both the same names; or make one pydantic model of them, and let validate return "
        'Params.model_validate(params).model_dump(mode="json").',
    ),
    # What a trial shows: parameters and ids
    "GF301": Rule(
        "error",
        "the job id is not 64 lower-case hex digits",
        "The column takes 64 characters: the job is refused, or cannot be found again.",
        'Write hashlib.sha256(f"tile_stats|{json.dumps(params, sort_keys=True)}".encode()).hexdigest().',
    ),
    "GF302": Rule(
        "error",
        "the job id differs for the same parameters",
        "Every submission is a new job: the same work is done again, and nothing is ever found to be there.",
        "Make it of the parameters alone, no uuid4() and no clock, by json.dumps(params, sort_keys=True).",
    ),
    "GF303": Rule(
        "warning",
        "the job id ignores the job type",
        "Another job type with the same parameters has the same id. " + _OTHER_JOB,
        'Hash the job type too: f"{Tiles.job_type}|{json.dumps(params, sort_keys=True)}".',
    ),
    "GF304": Rule(
        "warning",
        "the job id ignores a parameter that is not declared as outside the identity",
        "Two submissions that differ in it alone count as one. " + _OTHER_JOB,
        'Hash it too; or, where the work is the same, declare it: non_identity_parameters = ("note",).',
    ),
    "GF305": Rule(
        "note",
        "the job id changes with the keys that production's submit adds",
        "Its submit adds dataset_id, resource_id, version_id, system and use_service_bus: the id is another one.",
        'Let validate return the keys that it knows: {"folder": params["folder"]}, not params itself. Give a '
        "gf.JobType its params= class.",
    ),
    "GF306": Rule(
        "note",
        "validate_job_parameters refuses the keys that production's submit adds",
        "Its submit adds dataset_id, resource_id, version_id, system and use_service_bus: none is accepted.",
        'If it is to run there, pass them over: model_config = ConfigDict(extra="ignore").',
    ),
    "GF307": Rule(
        "warning",
        "a value changes on its way through JSON",
        "json.dumps raises, or what is read back is another value: the task is dropped, or fails on what it gets.",
        "Make it plain before: str(path), when.isoformat(), float(mean), str keys, None for NaN.",
    ),
    "GF308": Rule(
        "error",
        "a value has no JSON form",
        "The task is dropped without an error while the others run, or its result is lost.",
        "Write it to a file and return the path, or return plain numbers, text, lists and dicts.",
    ),
    "GF309": Rule(
        "note",
        "a tuple becomes a list in JSON",
        "What is read back is a list: it cannot be a dict's key, and is equal to no tuple.",
        "Return a list: list(bounds).",
    ),
    "GF310": Rule(
        "note",
        "validate_job_parameters reads files",
        "It runs where jobs are submitted, which may not see the files that workers see.",
        "Check the form of a path there, and the file itself in the first stage's handler.",
    ),
    "GF311": Rule(
        "warning",
        "validate or a plan touches files, the network or tables",
        "They run in the engine, for each message again: no timeout, no retry, and a failure there ends the whole job.",
        "Do it in a handler of a stage before, and read its result from previous_results.",
    ),
    "GF312": Rule(
        "warning",
        "validate_job_parameters returns no dict, or refuses with another error than ValueError",
        "The submission ends in a 500 without a word on what was wrong with the parameters.",
        'Write raise ValueError("folder is missing: give the folder of the tiles"), and return a dict.',
    ),
    # Plans
    "GF320": Rule(
        "error",
        "a plan is no list of dicts with task_id, task_type and parameters",
        "The stage cannot be made, and the job fails.",
        'Return [{"task_id": f"{job_id[:8]}-scan", "task_type": "scan_tiles", "parameters": {...}}].',
    ),
    "GF321": Rule(
        "error",
        "a task id is there twice",
        "Within a stage it runs twice on one row; in a later stage it fails that stage.",
        'Put the stage and what the task is about into it: f"{job_id[:8]}-s{stage}-{tile}".',
    ),
    "GF322": Rule(
        "error",
        "a task id is longer than 100 characters",
        "The column takes 100 characters: the insert fails.",
        'Hash what is long: hashlib.sha256(f"{job_id}|s{stage}|{path}".encode()).hexdigest()[:16].',
    ),
    "GF323": Rule(
        "error",
        "a task is larger than a message may be (256 KB)",
        "The queue refuses the message: that task is dropped, the others run, and the job waits for it for ever.",
        "Write what is long to a file in a handler, and pass its path.",
    ),
    "GF324": Rule(
        "error",
        "a plan differs when it is asked twice",
        "A message that arrives twice makes the tasks again under other ids, and all of them run.",
        'Make ids of what the task is about, no uuid4() and no clock: f"{job_id[:8]}-s{stage}-{tile}".',
    ),
    "GF325": Rule(
        "warning",
        "a plan uses previous_results by their position",
        "They come as text order has them (0, 1, 10, 11, 2 …), less those that failed: rows of different things mix.",
        'Return in the result what it is about, {"tile": tile, ...}, and read it there: one["result"]["tile"].',
    ),
    "GF326": Rule(
        "warning",
        "a plan makes no tasks",
        "Nothing is queued, so nothing ever completes: the job stays `processing`.",
        'Refuse it before: raise ValueError("no tiles to do") in validate, or in the handler that looks for them.',
    ),
    "GF327": Rule(
        "note",
        "task ids do not depend on the job",
        "One table keeps the tasks of all jobs: the second job's tasks meet the rows of the first.",
        'Begin them with the job\'s id: f"{job_id[:8]}-scan-{tile}".',
    ),
    "GF328": Rule(
        "error",
        "a key is read that the previous stage's result does not have",
        "The job fails between two stages, when all the work of the first is done.",
        "Make both sides agree: read the key that the handler writes, often one level deeper, in "
        'one["result"]["tiles"].',
    ),
    "GF329": Rule(
        "warning",
        "a plan raises with these parameters",
        "The job fails when it comes to this stage.",
        "See the error. What depends on parameters, refuse in validate_job_parameters.",
    ),
    # Handlers and finalize
    "GF330": Rule(
        "error",
        "a handler breaks on the keys that production adds to its parameters",
        "_correlation_id and _processing_path are added to every task: each call fails, permanently. " + _STUCK,
        'Take what you need by name, as in measure(params["tile"], params["band"]), in place of measure(**params).',
    ),
    "GF331": Rule(
        "warning",
        "a handler fails with these parameters",
        "Of a permanent error no row is written: task and job stay `processing` for ever.",
        "Mend it, or give parameters for which it can work: gf.check(..., folder=...). What was not tried after it is "
        "not checked.",
    ),
    "GF332": Rule(
        "error",
        "a handler reads a key that its plan does not give",
        "A KeyError is permanent. " + _STUCK,
        'Put it into the "parameters" of the task in create_tasks_for_stage, or read it under the name it has there.',
    ),
    "GF340": Rule(
        "error",
        "finalize fails when all is well, or returns no dict",
        _FALLBACK,
        "See the error, mend it, and check again; a job that has run is mended with job.refinalize().",
    ),
    "GF341": Rule(
        "note",
        "finalize fails when a task failed",
        "A sibling that ends last brings a failed job back: finalize then sees a task with result_data {}. "
        + _FALLBACK,
        'Read completed ones alone: [task.result_data["result"] for task in context.task_results if task.success].',
    ),
    "GF342": Rule(
        "note",
        "finalize fails when there were no tasks",
        _FALLBACK,
        'Return early: if not context.task_results: return {"tiles": 0}.',
    ),
    # The check itself
    "GF901": Rule(
        "note",
        "the trial was left out: there are no parameters for it",
        "Ids, plans, handlers and finalize were read, not tried.",
        'Give some that take seconds: gf.check(Tiles, folder="data/sample"), or geoflow check tiles.py folder=... .',
    ),
    "GF902": Rule(
        "note",
        "the trial could not go on with only some of the tasks",
        "Stages after this one were read, not tried.",
        "Give parameters that make fewer tasks, or have more of them run: gf.check(..., run=20).",
    ),
    "GF903": Rule(
        "warning",
        "the trial did not end in time, or ended its process",
        "A worker is stopped by it too, and the task delivered again, to stop the next one.",
        "Give parameters for less work; or more time: gf.check(..., seconds=600).",
    ),
}
