"""Write the test of an exported module, with what a run was given and made. It needs pytest and the module alone."""

from __future__ import annotations

from typing import Any

from geoflow.exporting.layout import literal, quoted
from geoflow.text import mask
from geoflow.values import to_json

LONGEST = 8_000  # characters of a stage's results that are written down
TASKS = 3  # of each stage

_TEST = '''"""What {name} made of a run that was recorded: the same ids, the same results."""

{future}from {package}{name} import ALL_HANDLERS, ALL_JOBS

JOB = ALL_JOBS[{quoted}]
'''
_CONTRACT = """

def test_every_stage_has_a_handler():
    assert {stage["task_type"] for stage in JOB.stages} == ALL_HANDLERS.keys()
"""
_ID = """

def test_the_job_has_the_id_that_it_had():
    assert JOB.generate_job_id(PARAMETERS) == JOB_ID
"""
_IDS = """

def test_the_tasks_of_a_stage_have_the_ids_that_they_had():
    for stage, (previous, ids) in TASK_IDS.items():
        tasks = JOB.create_tasks_for_stage(stage, PARAMETERS, JOB_ID, previous)
        assert [task["task_id"] for task in tasks] == ids
"""
_RESULTS = """

def test_handlers_return_what_they_did():
    for task_type, params, result in TASKS:
        added = {"_correlation_id": "test", "_processing_path": "test"}
        assert ALL_HANDLERS[task_type]({**params, **added}) == result
"""


def test_text(name: str, package: str, contract: Any, run: dict[str, Any] | None, notes: list[str]) -> str:
    """The test's text. What is too long to be read, or holds a secret, is left out and told in *notes*."""
    text = _TEST.format(name=name, package=package, quoted=quoted(name), future="")
    if run is None:
        return text + _CONTRACT
    if mask(run) != run:
        notes.append("the test has no recorded values, since some look like secrets.")
        return text + _CONTRACT
    ids: dict[int, Any] = {}
    tasks: list[Any] = []
    previous: list[Any] | None = None
    for stage, found in zip(contract.stages, run["stages"], strict=True):
        if len(to_json([previous, found])) > LONGEST:
            notes.append(f"the test leaves out {stage['name']}: what it was given and made is too long to read.")
        elif stage["parallelism"] == "fan_in":
            about = {"stage": stage["number"], "previous_stage": stage["number"] - 1, "pattern": "fan_in"}
            about["result_count"] = len(previous or [])
            given = {"previous_results": previous, "job_parameters": run["parameters"], "aggregation_metadata": about}
            tasks += [(stage["task_type"], given, task["result"]) for task in found]
        else:
            ids[stage["number"]] = (previous, [task["task_id"] for task in found])
            planned = contract.create_tasks_for_stage(stage["number"], run["parameters"], run["job_id"], previous)
            pairs = list(zip(planned, found, strict=True))[:TASKS]
            tasks += [(stage["task_type"], task["parameters"], was["result"]) for task, was in pairs]
        previous = [task["result"] for task in found] or None
    for head, value in {
        "PARAMETERS": run["parameters"],
        "JOB_ID": run["job_id"],
        "TASK_IDS": ids,
        "TASKS": tasks,
    }.items():
        text += literal(value, f"{head} = ") + "\n"
    return text + _CONTRACT + _ID + (_IDS if ids else "") + (_RESULTS if tasks else "")
