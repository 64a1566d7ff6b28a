"""The command line: what is typed, what it prints, its exit codes. Real jobs, in this process where that will do."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import pytest

from geoflow.commands.cli import main
from geoflow.core.rows import NewJob
from geoflow.support.text import columns
from tests.helpers import jobs as job_types
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until

JOBS = Path(job_types.__file__)
LOADED = job_types.__name__  # as a file of a package is named


class Typed(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Typed]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder to type in; retries at once. What job files are imported from is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOFLOW_BASE_DELAY", "0")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def geoflow(capfd: pytest.CaptureFixture[str]) -> Type:
    """Type a command here; jobs run in this process."""

    def typed(*words: str) -> Typed:
        capfd.readouterr()
        drives = any(word in ("run", "resume", "retry", "rerun", "refinalize") for word in words)
        code = main([*words, *(("--workers", "0") if drives and "--workers" not in words else ())])
        return Typed(code, *capfd.readouterr())

    return typed


def start(*words: str) -> subprocess.Popen[str]:
    """Type a command in a process of its own."""
    command = [sys.executable, "-m", "geoflow", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def acts(*tasks: dict[str, Any], **more: Any) -> tuple[str, ...]:
    """A run of tasks that do as they are told."""
    return ("run", f"{JOBS}:acts", f"tasks={json.dumps(tasks)}", *(f"{name}={value}" for name, value in more.items()))


JOB_FILE = """
from geoflow.jobtypes.contract import job_id_for
{before}
class Named:
    job_type = "named"
    description = "A job that a test names."
    stages = [{{"number": 1, "name": "work", "task_type": "work"}}]

    @staticmethod
    def validate_job_parameters(params):
        return {validated}

    @staticmethod
    def generate_job_id(params):
        return params.get("id") or job_id_for("named", params)

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        numbers = range(job_params.get("n", 1))
        return [{{"task_id": f"t{{i}}", "task_type": "work", "parameters": {{"i": i}}}} for i in numbers]

    @staticmethod
    def finalize_job(context=None):
        return {result}

{handler}
ALL_JOBS, ALL_HANDLERS = {{"named": Named}}, {{"work": work}}
"""


def job_file(
    name: str,
    *,
    before: str = "",
    validated: str = "params",
    result: str = '{"done": True}',
    handler: str = 'def work(params):\n    return {"success": True}',
) -> str:
    Path(name).write_text(JOB_FILE.format(before=before, validated=validated, result=result, handler=handler))
    importlib.invalidate_caches()
    return name


# Running


def test_a_built_in_job_runs_and_its_result_is_shown(geoflow: Type) -> None:
    typed = geoflow("run", "hello_world", "n=20")
    assert typed.code == 0
    assert "completed" in typed.out
    assert '"greetings": 20' in typed.out
    assert "more lines; --json prints all." in typed.out
    assert typed.err == ""


def test_values_are_json_where_they_can_be_and_text_where_not(geoflow: Type) -> None:
    typed = geoflow(*acts(), 'text={"', "flag=true", 'quoted="3"', "nan=NaN", "equal=a=b", "empty=", "--json")
    found = typed.document["parameters"]
    assert found == {
        "tasks": [], "text": '{"', "flag": True, "quoted": "3", "nan": "NaN", "equal": "a=b", "empty": ""
    }  # fmt: skip


def test_a_number_that_nothing_could_hold_stays_text(geoflow: Type) -> None:
    typed = geoflow(*acts(), "commit=980e663509", "none=1e-999", "id=99999999999999999999", "n=[1e999,1e-3]", "--json")
    found = typed.document["parameters"]
    assert found == {
        "tasks": [], "commit": "980e663509", "none": "1e-999", "id": "99999999999999999999", "n": ["1e999", 0.001]
    }  # fmt: skip


def test_a_file_of_parameters_says_each_once(geoflow: Type) -> None:
    Path("twice.json").write_text('{"n": 2, "n": 3}')
    assert (
        "twice.json has n twice, as 2 and as 3: give it once"
        in geoflow("run", "hello_world", "--params", "twice.json").err
    )


def test_what_goes_into_a_pipe_is_not_cut(geoflow: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    error = "it said " + "no " * 200
    geoflow(*acts({"do": "fail", "value": {"error": error, "retryable": False}}))
    for verb in ("tasks", "errors"):
        assert error.strip() in geoflow(verb).out
    assert "time (UTC)" in geoflow("logs").out


def test_python_s_own_words_and_lists_are_values_too(geoflow: Type) -> None:
    typed = geoflow(*acts(), "yes=True", "none=None", "bands=['B1', 'B2']", "tile=33_12", "open=[1", "--json")
    found = typed.document["parameters"]
    assert found == {
        "tasks": [], "yes": True, "none": None, "bands": ["B1", "B2"], "tile": "33_12", "open": "[1"
    }  # fmt: skip


def test_parameters_come_from_a_file_and_what_is_typed_comes_first(geoflow: Type) -> None:
    Path("hello.json").write_text('{"n": 2, "message": "of the file"}')
    typed = geoflow("run", "hello_world", "--params", "hello.json", "n=1", "--json")
    assert typed.document["parameters"] == {"n": 1, "message": "of the file", "failure_rate": 0.0}
    Path("broken.json").write_text("n: [")
    for name, said in (("broken.json", "broken.json is "), ("gone.json", "cannot be read")):
        assert said in geoflow("run", "hello_world", "--params", name).err


def test_common_options_stand_before_the_verb_or_after_it_and_words_between_options(geoflow: Type) -> None:
    geoflow("--store", "a.db", "run", "--json", "hello_world", "n=1", "--on-existing", "raise", "message=between")
    before, after = geoflow("--store", "a.db", "--json", "status"), geoflow("status", "--json", "--store", "a.db")
    assert before.document == after.document
    assert before.document["parameters"]["message"] == "between"
    assert not Path("geoflow.db").exists()


def test_a_job_is_one_json_document_whatever_its_handlers_print(geoflow: Type) -> None:
    handler = "def work(params):\n    print('loud')\n    return {'success': True}"
    typed = geoflow("run", job_file("loud.py", handler=handler), "--json")
    found = typed.document
    assert (found["status"], found["duration"] > 0, len(found["job_id"])) == ("completed", True, 64)
    assert datetime.fromisoformat(found["ended_at"]) >= datetime.fromisoformat(found["created_at"])
    assert found["receipt"]["status"] == "created"
    assert [(stage["stage_name"], stage["completed"]) for stage in found["stages"]] == [("work", 1)]
    assert "loud" in typed.err


def test_the_exit_code_tells_a_failed_job_and_one_that_completed_with_errors(geoflow: Type) -> None:
    failed = geoflow(*acts({"do": "raise", "value": "ValueError"}, {}))
    assert failed.code == 1
    assert "a ValueError on purpose" in failed.out
    job_id = geoflow("status", "--json").document["job_id"][:8]
    assert f"Next: geoflow retry {job_id} --load {LOADED} " in failed.out
    with_errors = geoflow(*acts({}, finalize="raise"))
    assert with_errors.code == 3
    assert "completed with errors" in with_errors.out
    assert "Next: geoflow refinalize" in with_errors.out
    assert geoflow("status").code == 0


def test_a_probe_that_failed_is_shown_without_a_next_step_that_a_terminal_cannot_take(geoflow: Type) -> None:
    failed = geoflow("probe", *acts({"do": "raise", "value": "ValueError"})[1:])
    assert failed.code == 1
    status = geoflow("status")
    assert "failed  probe_of_acts" in status.out
    assert "Next:" not in status.out


def test_S64_two_jobs_are_compared(geoflow: Type) -> None:
    ids = [geoflow("run", "hello_world", f"n={n}", "--json").document["job_id"] for n in (2, 3)]
    shown = geoflow("compare", ids[0][:8], ids[1])
    assert (shown.code, shown.out.splitlines()[0]) == (
        0,
        f"A is hello_world {ids[0][:8]}, B is hello_world {ids[1][:8]}",
    )
    assert geoflow("compare", *ids, "--json").document["counts"] == {"only_b": 2, "same": 4}
    refused = geoflow("compare", *ids, "--on", "nothing")
    assert refused.code == 2
    assert "has a parameter 'nothing': --on names one that has" in refused.err


def test_S9_S10_a_job_that_exists_is_shown_and_said_to_exist_or_run_again(geoflow: Type) -> None:
    first = geoflow("run", "hello_world", "n=1", "--json").document
    found = geoflow("run", "hello_world", "n=1", "--json")
    assert (found.document["receipt"]["status"], found.document["ended_at"]) == ("already_exists", first["ended_at"])
    assert "was submitted before, and is completed: nothing was run. --on-existing rerun" in found.err
    refused = geoflow("run", "hello_world", "n=1", "--on-existing", "raise")
    assert refused.code == 2
    assert f"exists and is completed; see geoflow status {first['job_id'][:8]}.\n" in refused.err
    again = geoflow("run", "hello_world", "n=1", "--on-existing", "rerun", "--json").document
    assert again["started_at"] > first["ended_at"]


def test_S10_a_job_that_stopped_is_said_to_go_on_first_and_to_be_done_over_second(
    geoflow: Type, open_session: OpenSession
) -> None:
    ways = "nothing was run. --on-existing resume goes on with what has not completed, --on-existing rerun does all"
    failing = acts({"do": "raise", "value": "ValueError"})
    assert geoflow(*failing).code == 1
    assert f"was submitted before, and has failed: {ways} of it again.\n" in geoflow(*failing).err
    sleeping = {"do": "sleep", "value": 60, "trace": str(Path("began").absolute())}
    with open_session("geoflow.db", workers=1) as session:
        session.submit("acts", tasks=[sleeping])
        wait_until(Path("began").exists)
        session.close()
    found = geoflow(*acts(sleeping))
    assert f"was submitted before, and is interrupted: {ways} of it again.\n" in found.err
    assert "interrupted" in found.out
    assert geoflow(*acts(sleeping), "--on-existing", "raise").code == 2


def test_a_parameter_that_is_no_part_of_the_identity_is_not_dropped_in_silence(geoflow: Type) -> None:
    geoflow("run", "hello_world", "n=1")
    found = geoflow("run", "hello_world", "n=1", "failure_rate=0.5")
    assert "keeps its own failure_rate=0.0: --on-existing rerun takes failure_rate=0.5.\n" in found.err
    assert "keeps its own" in geoflow("run", "hello_world", "n=1", "failure_rate=0.6", "--on-existing", "resume").err
    assert "keeps its own" not in geoflow("run", "hello_world", "n=1", "failure_rate=0.0").err
    again = geoflow("run", "hello_world", "n=1", "failure_rate=0.5", "--on-existing", "rerun", "--json")
    assert (again.document["parameters"]["failure_rate"], again.err) == (0.5, "")


def test_older_code_is_told_once_in_words_that_can_be_typed(geoflow: Type) -> None:
    file = job_file("ran_with_older.py")
    geoflow("run", file)
    sys.modules.pop(Path(file).stem)
    job_file(file, handler="def work(params):\n    return {'success': True, 'result': {'more': 1}}")
    found = geoflow("run", file)
    job_id = geoflow("status", "--json").document["job_id"][:8]
    (told,) = found.err.splitlines()
    assert told.endswith(
        f"1 task of 'work' ran with older code: geoflow rerun {job_id} --stale runs them again, and all that follows; "
        "--on-existing rerun the whole job."
    )
    assert f"Next: geoflow rerun {job_id} --load {Path(file).absolute()} --stale " in found.out


def test_what_to_do_is_said_in_words_of_the_terminal_and_once(geoflow: Type, open_session: OpenSession) -> None:
    stages = '[{"number": 1, "name": "work", "task_type": "work"}, {"number": 2, "name": "on", "task_type": "work"}]'
    file = job_file("in_words.py")
    with open_session("geoflow.db", workers=0) as session:
        session.store.create(NewJob("a" * 64, "named", stages, "{}", 0.0, str(Path(file).absolute())))
        where = f"which is not registered in this session. Its code came from {Path(file).absolute()}."
    for words, said in (
        (("status", "ffff"), "begins with 'ffff'; see geoflow jobs.\n"),
        (("run", "nosuch"), "Name its file, such as path/to/jobs.py, or its module.\n"),
        (("resume",), f"{where} No file is loaded by itself: name it with --load.\n"),
        (("retry",), f"{where} Type: geoflow retry aaaaaaaa --load {Path(file).absolute()}\n"),
        (("rerun", "--stage", "2", "--load", file), "has not come to stage 2 yet: geoflow resume aaaaaaaa goes on"),
    ):
        typed = geoflow(*words)
        assert said in typed.err, typed.err
        assert "session.register" not in typed.err
        assert "()" not in typed.err


def test_a_module_is_found_in_the_folder_where_the_command_is_typed(geoflow: Type) -> None:
    Path("parcels").mkdir()
    Path("parcels/__init__.py").touch()
    job_file("parcels/typed.py", result="None")
    typed = geoflow("run", "parcels.typed")
    assert typed.code == 3
    assert "--load parcels.typed" in typed.out  # its path alone would lose the package


# Bad input: a message, exit code 2, and no store


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "hello_wrold"], ["Did you mean 'hello_world'?", "list_container_contents"]),
        (["run", "hello_world", "n=0", "failure_rate=7"], ["- n: ", "- failure_rate: "]),
        (["run", "hello_world", "n=abc"], ["- n: ", "'abc'"]),
        (["run", "hello_world", "n", "m"], ["is written name=value", "'n', 'm'"]),
        (["run", "hello_world", "--workers", "-1"], ["workers cannot be '-1'"]),
        ([], ["the following arguments are required: VERB"]),
        (["run"], ["the following arguments are required: JOB_TYPE"]),
        (["run", "gone.py"], ["There is no file", "gone.py"]),
        (["run", "gone.away"], ["There is no module 'gone.away'"]),
        (["rum", "hello_world"], ["There is no verb 'rum'. Did you mean run?"]),
        (["zzz"], ["There is no verb 'zzz'. The verbs are run, plan, probe, jobs,"]),
        (["run", "hello_world", "n=1", "n=2"], ["has n twice, as 1 and as 2: give it once"]),
        (["run", "hello_world", "--store", "gone/work.db"], ["gone does not exist. Make it first."]),
        (["--json"], ["are required: VERB. See geoflow --help."]),
        (["convert"], ["the following arguments are required: SOURCE, TARGET. See geoflow convert --help."]),
        (["convert", "a"], ["the following arguments are required: TARGET. See"]),
        (["cancel"], ["the following arguments are required: JOB. See"]),
        (["sql"], ["the following arguments are required: QUERY. See geoflow sql --help."]),
        (["sql", "--limit", "3", "select", "1"], ["geoflow sql does not know --limit. See"]),
        (["status", "a", "b"], ["geoflow status does not know b. See geoflow status --help."]),
        (["run", "hello_world", "--stor", "x.db"], ["geoflow run does not know --stor. Did you mean --store? See"]),
        (["run", "-x", "hello_world"], ["geoflow run does not know -x. See geoflow run --help."]),
        (["--jsn", "jobs"], ["geoflow does not know --jsn. Did you mean --json? See geoflow --help."]),
        (["run", "hello_world", "--n=3"], ["geoflow run does not know --n=3. A parameter is written n=3. See"]),
        (["--store"], ["Option '--store' requires an argument. See geoflow --help."]),
        (["--json=3", "jobs"], ["Option '--json' does not take a value. See geoflow --help."]),
        (["jobs", "--limit", "few"], ["argument --limit: 'few' is not a number of rows. See geoflow jobs --help."]),
        (["jobs", "--limit", "-1"], ["argument --limit: '-1' is not a number of rows. See"]),
        (["jobs", "--workers", "x"], ["argument --workers: 'x' is not a valid integer. See"]),
        (["tasks", "--state", "odd"], ["argument --state: 'odd' is not one of 'queued', 'processing', 'completed',"]),
        (["check", "hello_world", "--seconds", "x"], ["argument --seconds: 'x' is not a valid float. See"]),
        (["rerun", "--stage", "1", "--stale"], ["argument --stale: not allowed with argument --stage. See"]),
        (["rerun", "--stale", "--stage", "1"], ["argument --stage: not allowed with argument --stale. See"]),
        (["run", "hello_world", "--params", "gone.json"], ["The parameters in gone.json cannot be read: "]),
        (["plan", "hello_wrold"], ["Did you mean 'hello_world'?"]),
        (["check", "nothing"], ["Unknown job type 'nothing'."]),
        (["export", "gone.py", "out"], ["There is no file ", "gone.py"]),
        (["export", "hello_world", "out"], ["HelloWorld is no gf.JobType"]),
        (["restore", "gone.db"], ["There is no backup at gone.db"]),
        (["convert", "gone.db", "b.duckdb"], ["There is no store at gone.db: nothing was copied."]),
        (["jobs", "--store", ":memory:", "--stage"], ["geoflow jobs does not know --stage"]),
        (["jobs"], ["There is no store geoflow.db in /"]),
        (["resume", "--load", "x.py"], ["There is no store geoflow.db in /"]),
    ],
)
def test_S7_what_cannot_be_done_is_one_message_and_leaves_no_store(
    geoflow: Type, words: list[str], said: list[str], tmp_path: Path
) -> None:
    typed = geoflow(*words)
    assert (typed.code, typed.out) == (2, "")
    assert typed.err.startswith("geoflow: error: ")
    assert all(part in typed.err for part in said), typed.err
    assert "Traceback" not in typed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"handler": "work = lambda params: {}"}, "is a lambda: write it as a def"),
        (
            {
                "before": "LOG = open(__file__)\n\ndef make():\n    log = open(__file__)\n"
                "    def inner(params):\n        return {'success': bool(log)}\n    return inner",
                "handler": "work = make()",
            },
            "uses the open file 'log': pass its path",
        ),
        ({"validated": "params['depth']"}, "KeyError: 'depth' (validate_job_parameters in "),
        ({"validated": "None"}, "must return a dict; it returned NoneType"),
    ],
)
def test_S5_a_job_file_that_breaks_the_contract_is_refused_and_leaves_no_store(
    geoflow: Type, options: dict[str, str], said: str
) -> None:
    typed = geoflow("run", job_file(f"broken_{abs(hash(said))}.py", **options))
    assert (typed.code, typed.out) == (2, "")
    assert said in typed.err
    assert "Traceback" not in typed.err
    assert not Path("geoflow.db").exists()


def test_a_job_file_that_does_not_import_shows_its_own_traceback_and_none_of_ours(geoflow: Type) -> None:
    Path("own_module.py").write_text("def area():\n    return 1 / 0\n")
    typed = geoflow("run", job_file("does_not_import.py", before="import own_module\nown_module.area()"))
    assert typed.code == 2
    frames = [line for line in typed.err.splitlines() if line.lstrip().startswith("File ")]
    assert [Path(frame.split('"')[1]).name for frame in frames] == ["does_not_import.py", "own_module.py"]
    assert "ZeroDivisionError: division by zero" in typed.err
    assert "could not be imported" in typed.err


def test_our_own_traceback_is_shown_with_debug_alone(geoflow: Type) -> None:
    typed = geoflow("--debug", "run", "hello_world", "n=abc")
    assert typed.code == 2
    assert "Traceback (most recent call last)" in typed.err
    assert typed.err.rstrip().splitlines()[-2].startswith("geoflow: error: hello_world refuses")


def test_a_store_that_is_no_store_is_refused_and_not_touched(geoflow: Type) -> None:
    Path("notes.txt").write_text("dear diary " * 50)
    newer = sqlite3.connect("newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    for name, said in (("notes.txt", "is not a SQLite file"), ("newer.db", "was written by a newer geoflow")):
        before = Path(name).read_bytes()
        for words in (("run", "hello_world"), ("jobs",), ("resume",)):
            typed = geoflow(*words, "--store", name)
            assert (typed.code, typed.out) == (2, "")
            assert said in typed.err
        assert Path(name).read_bytes() == before
        assert not list(Path().glob(f"{name}?*"))


def test_a_job_id_must_be_known_and_tell_one_job_from_the_others(geoflow: Type) -> None:
    file = job_file("ambiguous.py")
    ids = ["ab" + "0" * 62, "ab" + "1" * 62]
    for job_id in ids:
        assert geoflow("run", file, f'id="{job_id}"').code == 0
    unknown, several = geoflow("status", "ffff"), geoflow("tasks", "AB", "--json")
    assert (unknown.code, several.code, several.out) == (2, 2, "")
    assert "No job in geoflow.db has an id that begins with 'ffff'" in unknown.err
    assert all(job_id[:12] in several.err for job_id in ids)
    assert geoflow("status", "ab1", "--json").document["job_id"] == ids[1]


# Looking


def test_jobs_lists_every_job_and_status_shows_the_latest(geoflow: Type, open_session: OpenSession) -> None:
    with open_session("geoflow.db", workers=0) as session:
        session.store.open()
    assert geoflow("jobs") == (0, "There are no jobs in geoflow.db yet.\n", "")
    assert "There are no jobs in geoflow.db" in geoflow("status").err
    for n in (1, 2):
        geoflow("run", "hello_world", f"n={n}")
    listed = geoflow("jobs", "--json").document
    assert [(job["status"], job["parameters"]["n"], job["tasks"]) for job in listed] == [
        ("completed", 1, 2),
        ("completed", 2, 4),
    ]
    assert all(datetime.fromisoformat(job["created_at"]).tzinfo for job in listed)
    assert all(isinstance(job["duration"], float) for job in listed)
    lines = geoflow("jobs").out.splitlines()
    assert [job["job_id"][:8] in line for job, line in zip(listed, lines, strict=True)] == [True, True]
    assert geoflow("status", "--json").document["job_id"] == listed[1]["job_id"]


def test_jobs_shows_the_latest_and_how_many_there_are_and_a_program_reads_all(
    geoflow: Type, open_session: OpenSession
) -> None:
    with open_session("geoflow.db", workers=0) as session:
        jobs = [session.submit("hello_world", n=1, message=str(number)) for number in range(52)]
        assert {str(job.wait(60).status) for job in jobs} == {"completed"}
    lines = geoflow("jobs").out.splitlines()
    assert lines[0] == "The last 50 of 52; --limit 52 shows all."
    assert [job.id[:8] in line for job, line in zip(jobs[2:], lines[1:], strict=True)] == [True] * 50
    assert len(geoflow("jobs", "--limit", "52").out.splitlines()) == 52
    (last,) = geoflow("jobs", "--limit", "1").out.splitlines()[1:]
    assert last.split() == lines[-1].split()  # columns are as wide as what stands in them, times for one
    assert [job["job_id"] for job in geoflow("jobs", "--json").document] == [job.id for job in jobs]
    assert [job["job_id"] for job in geoflow("jobs", "--json", "--limit", "2").document] == [
        job.id for job in jobs[50:]
    ]


def test_tasks_are_listed_all_or_those_in_a_state(geoflow: Type) -> None:
    geoflow(*acts({"value": 7}, {"do": "fail", "value": {"retryable": False}}, {"value": 9}))
    everything = geoflow("tasks", "--json").document
    assert [(task["task_id"], task["status"]) for task in everything] == [
        ("s1-t0", "completed"),
        ("s1-t1", "failed"),
        ("s1-t2", "completed"),
    ]
    assert everything[0]["result"]["result"]["value"] == 7
    assert everything[1]["result"] is None
    assert [task["task_id"] for task in geoflow("tasks", "--state", "failed", "--json").document] == ["s1-t1"]
    shown = geoflow("tasks").out.splitlines()
    assert len(shown) == 4
    assert "it said no" in shown[2]
    assert max(map(len, shown)) <= 80
    assert len(geoflow("tasks", "--state", "queued").out.splitlines()) == 1
    assert [task["task_id"] for task in geoflow("tasks", "--limit", "2", "--json").document] == ["s1-t0", "s1-t1"]
    assert "--limit: '-1' is not a number of rows" in geoflow("tasks", "--limit=-1").err


def test_logs_are_the_lines_of_a_job_the_last_ones_if_so_asked(geoflow: Type) -> None:
    geoflow("run", "hello_world", "n=1")
    job_id = geoflow("status", "--json").document["job_id"]
    lines = geoflow("logs", "--json").document
    assert {line["job_id"] for line in lines} == {job_id}
    assert datetime.fromisoformat(lines[0]["time"]) <= datetime.fromisoformat(lines[-1]["time"])
    shown = geoflow("logs", job_id, "--limit", "1").out.splitlines()
    assert len(shown) == 2
    assert shown[1].endswith(f"job {job_id[:8]} completed")
    assert geoflow("logs", job_id, "--limit", "1", "--follow").out.endswith(f"  INFO     job {job_id[:8]} completed\n")


def test_S63_history_lists_what_was_done_with_a_job_and_the_last_of_it_if_so_asked(geoflow: Type) -> None:
    geoflow(*acts({"do": "raise", "value": "ValueError"}))
    geoflow(*acts({"do": "raise", "value": "ValueError"}), "--on-existing", "rerun")
    events = geoflow("history", "--json").document
    done = ["submitted", "started", "planned", "failed", "ended"]
    assert [event["event"] for event in events] == [*done, "found again", "claimed", "rerun", *done[1:]]
    assert (events[3]["was"], events[3]["status"], events[3]["pid"]) == ("processing", "failed", os.getpid())
    assert datetime.fromisoformat(events[0]["happened_at"]) <= datetime.fromisoformat(events[-1]["happened_at"])
    assert geoflow("history", "--limit", "2", "--json").document == events[-2:]
    head, *shown = geoflow("history").out.splitlines()
    assert head.split() == ["at", "(UTC)", "event", "stage", "tasks", "process", "why"]
    assert all(event["event"] in line for event, line in zip(events, shown, strict=True))
    assert "Task 's1-t0'" in shown[3]
    assert max(map(len, shown)) <= 80


def test_log_lines_say_what_was_planned_and_why_a_job_failed(geoflow: Type) -> None:
    geoflow(*acts({"do": "raise", "value": "ValueError"}))
    job_id = geoflow("status", "--json").document["job_id"][:8]
    messages = [line["message"] for line in geoflow("logs", "--json").document]
    why = "ValueError: a ValueError on purpose"
    assert messages == [
        f"job {job_id} started",
        f"job {job_id} planned stage 1: 1 task",
        f"job {job_id} task failed: {why}",
        f"job {job_id} failed: Task 's1-t0' (act, number 0) failed without a retry: {why}",
        f"job {job_id} failed, and nothing of it runs any more",
    ]


def test_columns_that_take_two_places_stay_in_line(geoflow: Type) -> None:
    file = job_file("wide.py", handler="def work(params):\n    raise ValueError('地図' * 50)")
    geoflow("run", file)
    for verb in ("status", "tasks", "errors"):
        shown = geoflow(verb).out.splitlines()
        assert max(sum(map(columns, line)) for line in shown if not line.startswith(("Task ", "Next: "))) <= 80


def test_errors_are_the_attempts_that_failed_each_traceback_once(geoflow: Type) -> None:
    geoflow(*acts(*[{"do": "raise", "value": "ValueError"}] * 8, {"do": "raise", "value": "OSError"}))
    typed = geoflow("errors", "--traceback")
    assert typed.code == 0
    assert len(re.findall(r"^s1-t\d +1 +permanent +ValueError +a ValueError on purpose$", typed.out, re.M)) == 8
    assert re.findall(r"^s1-t8 +(\d) +transient +OSError +a OSError on purpose$", typed.out, re.M) == [*"1234"]
    assert typed.out.count("Traceback") == 2
    assert "Traceback" not in geoflow("errors").out
    attempts = geoflow("errors", "--json").document
    assert {attempt["outcome"] for attempt in attempts} == {"failed"}
    assert attempts[-1]["traceback"].rstrip().endswith("OSError: a OSError on purpose")


def test_errors_come_in_groups_first_and_then_the_last_of_them(geoflow: Type) -> None:
    geoflow(*acts(*[{"do": "raise", "value": "ValueError"}] * 24, {"do": "raise", "value": "KeyError"}))
    shown = geoflow("errors").out
    assert "25 attempts failed, in 2 kinds, each with its first task:" in shown
    assert re.search(r"^24 +24 +permanent +ValueError +a ValueError on purpose +s1-t0$", shown, re.M)
    assert re.search(r"^1 +1 +permanent +KeyError +'KeyError' +s1-t24$", shown, re.M)
    assert "The last 20 of them; --limit 25 shows all." in shown
    assert len(re.findall(r"^s1-t\d+ +1 +permanent ", shown, re.M)) == 20
    assert len(re.findall(r"^s1-t\d+ +1 +permanent ", geoflow("errors", "--limit", "25").out, re.M)) == 25
    assert re.findall(r"^s1-t\d+ +1 +permanent ", geoflow("errors", "--limit", "0").out, re.M) == []
    every = geoflow("errors", "--json").document
    assert len(every) == 25
    assert geoflow("errors", "--json", "--limit", "3").document == every[-3:]


def test_a_long_id_is_cut_where_it_says_least(geoflow: Type) -> None:
    file = job_file("long_ids.py", handler="def work(params):\n    raise ValueError('no good at all ' * 9)")
    Path(file).write_text(Path(file).read_text().replace('f"t{i}"', 'f"{job_id[:8]}-of-a-tile-in-a-long-folder-{i}"'))
    geoflow("run", file, "n=2")
    for verb in ("errors", "tasks"):
        ids = [line.split()[1 if verb == "tasks" else 0] for line in geoflow(verb).out.splitlines()[-2:]]
        assert ids[0] != ids[1]
        assert [given.endswith(f"folder-{number}") for number, given in enumerate(ids)] == [True, True]
    assert geoflow("errors").out.count("…") >= 2


def test_where_no_attempt_failed_errors_say_so(geoflow: Type) -> None:
    geoflow("run", "hello_world", "n=1")
    assert geoflow("errors").out == "No attempt failed.\n"
    assert geoflow("errors", "--json").document == []


def test_errors_tell_of_a_plan_that_failed_with_its_traceback(geoflow: Type) -> None:
    assert geoflow(*acts({}, plan="raise")).code == 1
    typed = geoflow("errors", "--traceback")
    assert "could not be planned: RuntimeError: on purpose" in " ".join(typed.out.split())
    assert "in _misbehave" in typed.out
    assert geoflow("errors", "--json").document == []


def test_S44_secrets_are_masked_wherever_they_are_shown(geoflow: Type) -> None:
    secret = "hunter2" * 3
    handler = "def work(params):\n    raise ValueError('cannot reach db://me:' + 'hunter2' * 3 + '@host')"
    file = job_file("secretive.py", handler=handler, result=f"{{'token': {secret!r}}}")
    shown = [geoflow("run", file, f"password={secret}"), geoflow("run", file, f"password={secret}", "--json")]
    shown += [geoflow(verb, *more) for verb in ("jobs", "status", "tasks", "errors") for more in ((), ("--json",))]
    shown.append(geoflow("errors", "--traceback"))
    assert [typed.code for typed in shown] == [1, 1, *[0] * 9]
    assert [secret in typed.out + typed.err for typed in shown] == [False] * len(shown)
    assert json.loads(shown[1].out)["parameters"] == {"password": "***"}


def test_S44_results_are_masked_for_people_and_exact_for_programs(geoflow: Type) -> None:
    tokens = ["of the job", "of a task"]
    handler = "def work(params):\n    return {'success': True, 'result': {'token': 'of a task'}}"
    shown = geoflow("run", job_file("revealing.py", handler=handler, result="{'token': 'of the job'}"))
    assert shown.code == 0
    for typed in (shown, geoflow("status"), geoflow("tasks")):
        assert not [token for token in tokens if token in typed.out]
        assert "***" in typed.out
    assert geoflow("status", "--json").document["result"] == {"token": "of the job"}
    assert geoflow("tasks", "--json").document[0]["result"]["result"] == {"token": "of a task"}


def test_S45_control_characters_do_not_reach_a_terminal(geoflow: Type) -> None:
    evil = "\x1b]0;title\x07\x1b[2Jgone\x9b31m\r\u202e"
    handler = f"def work(params):\n    raise ValueError({evil!r})"
    shown = [geoflow("run", job_file("evil_text.py", handler=handler), f"name={evil}")]
    shown += [geoflow(*words) for words in (("status",), ("tasks",), ("errors", "--traceback"), ("status", evil))]
    shown.append(geoflow("run", evil))
    assert [typed.code for typed in shown] == [1, 0, 0, 0, 2, 2]
    for typed in shown:
        assert not set(typed.out + typed.err) & set("\x1b\x07\x9b\r\u202e")
    assert "gone" in shown[1].out


# Taking jobs further


@pytest.mark.parametrize(
    ("verb", "broken", "code", "attempts"),
    [
        ("retry", {"handler": "def work(params):\n    raise ValueError('not yet')"}, 1, 2),
        ("refinalize", {"result": "None"}, 3, 1),
    ],
)
def test_retry_and_refinalize_go_on_with_mended_code(
    geoflow: Type, verb: str, broken: dict[str, str], code: int, attempts: int
) -> None:
    file = job_file(f"mended_by_{verb}.py", **broken)
    assert geoflow("run", file).code == code
    job_id = geoflow("status", "--json").document["job_id"][:8]
    sys.modules.pop(Path(file).stem)
    job_file(file)
    typed = geoflow(verb, job_id, "--load", file, "--json")
    assert (typed.code, typed.document["result"]) == (0, {"done": True})
    assert [task["attempts"] for task in geoflow("tasks", "--json").document] == [attempts]


def test_retry_and_refinalize_mean_the_latest_job(geoflow: Type) -> None:
    geoflow(*acts({"do": "raise", "value": "ValueError", "until_attempt": 2}, finalize="raise"))
    assert geoflow("retry", "--load", str(JOBS)).code == 3
    assert geoflow("refinalize", "--load", str(JOBS)).code == 3
    assert [task["attempts"] for task in geoflow("tasks", "--json").document] == [2]


def test_S26_how_often_a_failed_task_is_tried_again_can_be_typed(geoflow: Type) -> None:
    assert geoflow(*acts({"do": "raise", "value": "OSError"}), "--retries", "1").code == 1
    assert [task["attempts"] for task in geoflow("tasks", "--json").document] == [2]
    assert geoflow("retry", "--load", str(JOBS), "--retries", "0").code == 1
    assert [task["attempts"] for task in geoflow("tasks", "--json").document] == [3]
    refused = geoflow("run", "hello_world", "n=1", "--retries", "many")
    assert (refused.code, refused.err.count("--retries: 'many' is not a valid integer")) == (2, 1)


def test_rerun_does_over_a_job_a_stage_or_what_ran_with_older_code(geoflow: Type) -> None:
    file = job_file("run_again.py")
    geoflow("run", file)

    def attempts(*words: str) -> int:
        typed = geoflow("rerun", "--load", file, *words, "--json")
        assert (typed.code, typed.document["status"]) == (0, "completed")
        return len(geoflow("tasks", "--json").document) + int(geoflow("tasks", "--json").document[0]["attempts"])

    assert attempts() == 2, "the tasks are new ones"
    untouched = geoflow("rerun", "--load", file, "--stale")
    assert (untouched.code, "ran with older code: nothing was done." in untouched.err) == (0, True)
    sys.modules.pop(Path(file).stem)
    job_file("run_again.py", handler="def work(params):\n    return {'success': True, 'result': {'more': 1}}")
    assert attempts("--stale") == 3, "the task of before, once more"
    assert attempts("--stage", "1") == 2
    wrong = geoflow("rerun", "--load", file, "--stage", "nowhere")
    assert (wrong.code, "has no stage 'nowhere'. Its stages are 1 (" in wrong.err) == (2, True)


# One task again


def test_debug_runs_a_task_here_and_prints_what_it_returned(geoflow: Type) -> None:
    geoflow(*acts({"value": 7}, {"do": "fail"}, {"do": "raise", "value": "ValueError"}))
    done, refused, raised = (geoflow("debug", f"s1-t{n}", "--load", str(JOBS)) for n in range(3))
    assert (done.code, done.document["result"]["value"]) == (0, 7)
    assert re.fullmatch(r"Calling act for task s1-t0 of job \w{8}\.\nIt did not raise\.\n", done.err)
    assert (refused.code, refused.document) == (1, {"success": False, "error": "it said no"})
    assert (raised.code, raised.out) == (1, "")
    assert raised.err.endswith("ValueError: a ValueError on purpose\n")
    assert geoflow("debug", "--load", str(JOBS), "--json").document["error"] == "it said no"  # the first that failed


def test_output_is_what_a_task_printed_by_its_last_attempt(geoflow: Type) -> None:
    geoflow(*acts({"do": "tell", "value": "print('hello')"}, {}))
    assert geoflow("output", "s1-t0").out == "hello\n"
    assert geoflow("output", "s1-t0", "--follow").out == "hello\n"
    assert geoflow("output", "s1-t1").out == ""
    document = geoflow("output", "s1-t0", "--json").document
    assert (document["task_id"], document["status"], document["output"]) == ("s1-t0", "completed", "hello\n")
    assert geoflow("output", "nowhere").code == 2


def test_S43_debug_says_what_to_type_for_code_that_is_not_here(geoflow: Type) -> None:
    geoflow(*acts({}))
    job_id = geoflow("status", "--json").document["job_id"][:8]
    typed = geoflow("debug", "s1")
    assert typed.code == 2
    assert f"Type: geoflow debug {job_id}/s1-t0 --load {LOADED}\n" in typed.err


def test_debug_opens_pdb_where_someone_can_type(geoflow: Type) -> None:
    geoflow(*acts({"do": "raise", "value": "ValueError"}))
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "geoflow", "debug", "--load", str(JOBS)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(ours, b"up\np params\nq\n")
    out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, out) == (1, "")
    assert "It raised ValueError: a ValueError on purpose" in err
    assert "(Pdb) {'do': 'raise', 'value': 'ValueError'}\n" in err
    assert "Traceback" not in err


def test_S43_nothing_that_a_store_names_is_executed(geoflow: Type, open_session: OpenSession, tmp_path: Path) -> None:
    file = tmp_path / "of_the_store.py"
    file.write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    stages = '[{"number": 1, "name": "work", "task_type": "work"}]'
    with open_session(tmp_path / "geoflow.db", workers=0) as session:
        for digit, job_type in (("a", str(file)), ("b", "of_the_store"), ("c", "of_the_store.x")):
            session.store.create(NewJob(digit * 64, job_type, stages, "{}", 0.0, str(file)))
    for words in (("resume", "aaaa"), ("retry", "bbbb"), ("refinalize", "cccc"), ("resume",)):
        typed = geoflow(*words)
        assert typed.code == (2 if len(words) == 2 else 1)
        if len(words) == 2:
            assert f"Type: geoflow {words[0]} {words[1][0] * 8} --load {file}" in typed.err
    assert not (tmp_path / "executed").exists()
    assert [job["status"] for job in geoflow("jobs", "--json").document] == ["queued"] * 3


def test_resume_goes_on_with_every_interrupted_job_whose_code_is_here(geoflow: Type, open_session: OpenSession) -> None:
    file = job_file("waiting.py")
    stages = '[{"number": 1, "name": "work", "task_type": "work"}]'
    with open_session("geoflow.db", workers=0) as session:
        session.submit("hello_world", n=1).wait()
        for digit in "ab":
            session.store.create(NewJob(digit * 64, "named", stages, "{}", 0.0, str(Path(file).absolute())))
        greetings = session.store.jobs()[0].stages
        parameters = '{"n": 2, "message": "Hello", "failure_rate": 0.0}'
        session.store.create(NewJob("c" * 64, "hello_world", greetings, parameters, 0.0))
    without = geoflow("resume")
    assert without.code == 1
    assert all(f"Job {digit * 8} is of type 'named', which is not registered" in without.err for digit in "ab")
    assert all(f"Next: geoflow resume {digit * 8} --load" in without.out for digit in "ab")
    assert [job["status"] for job in geoflow("jobs", "--json").document] == [
        "completed",
        "queued",
        "queued",
        "completed",
    ]
    loaded = geoflow("resume", "--load", file, "--json")
    assert loaded.code == 0
    assert [(job["job_id"][0], job["status"]) for job in loaded.document] == [("a", "completed"), ("b", "completed")]
    assert geoflow("resume").out == "No job is interrupted.\n"


def test_S38_cancel_ends_a_job_that_waits_and_leaves_one_that_has_ended(
    geoflow: Type, open_session: OpenSession
) -> None:
    with open_session("geoflow.db", workers=0) as session:
        session.store.create(NewJob("a" * 64, "gone", '[{"number": 1, "name": "w", "task_type": "w"}]', "{}", 0.0))
    cancelled = geoflow("cancel", "aaaa", "--json")
    assert (cancelled.code, cancelled.document["status"]) == (0, "cancelled")
    geoflow("run", "hello_world", "n=1")
    job_id = geoflow("status", "--json").document["job_id"]
    ended = geoflow("cancel", job_id)
    assert (ended.code, ended.err) == (
        1, f"geoflow: There is nothing to cancel: job {job_id[:8]} has ended, as completed.\n"
    )  # fmt: skip
    assert geoflow("status", "--json").document["status"] == "completed"


# Processes of their own: signals, pipes, imports


def long_job(*more: str) -> tuple[str, ...]:
    """A run of one quick task and three that take a minute, which tell in a file that they began."""
    tasks = [{}, *[{"do": "sleep", "value": 60, "trace": str(Path("began").absolute())}] * 3]
    return (*acts(*tasks), "--workers", "2", *more)


def wait_for_began(process: subprocess.Popen[str]) -> set[int]:
    """The processes of a long job, once two tasks run."""
    began = Path("began")
    while not (began.exists() and len(began.read_text().splitlines()) >= 2):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            pytest.fail(str(process.communicate()))
    return {child.pid for child in psutil.Process(process.pid).children(recursive=True)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_S38_a_signal_puts_the_job_back_and_ends_the_workers(geoflow: Type, number: signal.Signals, code: int) -> None:
    process = start(*long_job())
    workers = wait_for_began(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, ""), err
    found = geoflow("status", "--json").document
    job_id = found["job_id"][:8]
    put_back = f"geoflow: Job {job_id} was put back.\nNext: geoflow resume {job_id} --load {LOADED}\n"
    assert err == f"{put_back}geoflow: interrupted.\n"
    assert (found["status"], found["state"], found["driver"]) == ("queued", "interrupted", None)
    assert [(task["status"], task["retries"]) for task in geoflow("tasks", "--json").document] == [
        ("completed", 0), ("queued", 0), ("queued", 0), ("queued", 0)
    ]  # fmt: skip
    psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=5)
    assert not [pid for pid in workers if psutil.pid_exists(pid)]


def test_watch_waits_for_a_job_that_another_process_drives(geoflow: Type) -> None:
    tasks = [{"do": "sleep", "value": 1, "trace": str(Path("began").absolute())}] * 2
    process = start(*acts(*tasks), "--workers", "2")
    wait_for_began(process)
    typed = geoflow("watch", "--json")
    assert (typed.code, typed.document["status"]) == (0, "completed")
    assert process.communicate(timeout=20) is not None
    assert geoflow("watch").code == 0


def test_S38_cancel_ends_a_job_that_another_process_drives(geoflow: Type) -> None:
    process = start(*long_job("--json"))
    wait_for_began(process)
    job = geoflow("status", "--json").document
    assert job["driver"].startswith(f"process {process.pid}")
    busy = geoflow("retry", job["job_id"], "--load", str(JOBS))
    assert busy.code == 2
    assert f"is driven by process {process.pid}" in busy.err
    waiting = start(*long_job("--json"))  # the same job: it waits for the first one's end
    assert waiting.stderr is not None
    driven = f"Job {job['job_id'][:8]} was submitted before, and is driven by process {process.pid}.\n"
    assert driven in waiting.stderr.readline()
    cancelled = geoflow("cancel", job["job_id"])
    out, _ = process.communicate(timeout=20)
    assert (cancelled.code, process.returncode) == (0, 1)
    assert (json.loads(waiting.communicate(timeout=20)[0])["status"], waiting.returncode) == ("cancelled", 1)
    assert json.loads(out)["status"] == "cancelled"


def test_a_pipe_that_is_closed_early_is_silent(geoflow: Type) -> None:
    geoflow("run", "hello_world", "n=1000")
    process = start("tasks")
    assert process.stdout is not None
    assert process.stderr is not None
    assert "task_id" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=20) == 141


def test_help_imports_nothing_heavy_and_run_no_dataframes() -> None:
    heavy = {"pandas", "numpy", "duckdb", "IPython", "rich", "ipywidgets", "sqlite_utils"}
    ours = {"pydantic", "cloudpickle", "geoflow.session"}
    for words, unwanted in (
        (["--help"], heavy | ours),
        (["run", "--n"], heavy | ours),
        (["run", "hello_world", "n=1"], heavy),
    ):
        script = (
            "import contextlib, sys; from geoflow.commands.cli import main\nif __name__ == '__main__':\n"
            f"    with contextlib.suppress(SystemExit):\n        main({words!r})\n"
            f"    sys.exit(' '.join({unwanted!r} & set(sys.modules)) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_check_finds_what_is_wrong_and_leaves_no_store(geoflow: Type, tmp_path: Path) -> None:
    sound = geoflow("check", "hello_world", "n=12")
    assert sound.code == 0
    assert sound.out.splitlines()[-1].startswith("hello_world: 0 errors, 0 warnings, ")
    source = JOBS.read_text().replace('"task_type": "act", "parameters": task', '"params": task')
    (tmp_path / "mine.py").write_text(source)
    typed = geoflow("check", "mine.py:acts", "tasks=[{}]", "--json")
    assert typed.code == 1
    [found] = [found for found in typed.document["findings"] if found["severity"] == "error"]
    assert found["code"] == "GF320"
    assert found["where"].startswith("mine.py:")
    assert "To do: " in geoflow("check", "mine.py:acts", 'tasks=[{"do": "make", "value": "made"}]', "--run", "0").out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_the_module_and_the_installed_command_are_the_same() -> None:
    command = Path(sys.executable).with_name("geoflow")
    for words in ([sys.executable, "-m", "geoflow"], *([[str(command)]] if command.exists() else [])):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "geoflow 0.1.0\n")
    done = subprocess.run([sys.executable, "-m", "geoflow", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, "exit codes:" in done.stdout) == (0, True)


def test_sql_answers_about_the_store_and_convert_copies_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, copy = str(tmp_path / "work.db"), str(tmp_path / "work.duckdb")
    assert main(["run", "hello_world", "n=2", "--workers", "0", "--store", store]) == 0
    capsys.readouterr()
    assert main(["convert", store, copy, "--json"]) == 0
    converted = capsys.readouterr()
    assert {"table": "task", "rows": 4} in json.loads(converted.out)
    takes_along = f"cp {store}.log {copy}.log"
    assert f"The log stays with {store}, in {store}.log: {takes_along} takes it along." in converted.err
    subprocess.run(takes_along.split(), check=True)
    assert main(["logs", "--store", copy]) == 0
    assert "planned stage 1: 2 tasks" in capsys.readouterr().out
    for place in (store, copy):
        assert main(["sql", "select stage, count(*) as n from tasks group by 1 order by 1", "--store", place]) == 0
        assert capsys.readouterr().out.split() == ["stage", "n", "1", "2", "2", "2"]
    assert main(["sql", "select max(created_at) as at, date '2024-02-29' as day from jobs", "--store", store]) == 0
    assert re.search(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  2024-02-29", capsys.readouterr().out, re.M)
    assert main(["sql", "select 1 as document, 2 as lines, 3 as exit_status", "--json", "--store", store]) == 0
    assert json.loads(capsys.readouterr().out) == [{"document": 1, "lines": 2, "exit_status": 3}]
    assert main(["sql", "select", "-1", "as", "x", "--store", store]) == 0
    assert capsys.readouterr().out.split() == ["x", "-1"]
    assert main(["sql", "delete from tasks", "--store", store]) == 2
    assert main(["sql", "select nothing", "--store", store]) == 2
    assert "geoflow: error:" in capsys.readouterr().err


def test_S49_an_update_is_typed_and_a_changed_input_says_so(geoflow: Type, tmp_path: Path) -> None:
    (data := tmp_path / "data.txt").write_text("one")
    handler = "def work(params):\n    return {'success': True, 'result': open(params['path']).read()}"
    file = job_file("reads_a_file.py", handler=handler)
    source = Path(file).read_text().replace('"task_type": "work"', '"task_type": "work", "inputs": ["path"]', 1)
    Path(file).write_text(source.replace('"parameters": {"i": i}', '"parameters": job_params'))
    run = ("run", file, f"path={data}", "--update")
    geoflow(*run)
    assert "1 reused, 0 ran" in geoflow(*run).out
    job_id = geoflow("status", "--json").document["job_id"]
    (task,) = geoflow("tasks", "--json").document
    assert task["reused_from"] == job_id
    data.write_text("another")
    found = geoflow(*run[:-1])
    assert f"inputs of 1 task changed since: geoflow rerun {job_id[:8]} --update runs what has changed" in found.err
    assert f"Next: geoflow rerun {job_id[:8]} --load {Path(file).absolute()} --update " in found.out
    assert geoflow("rerun", job_id[:8], "--load", file, "--update").code == 0
    (task,) = geoflow("tasks", "--json").document
    assert (task["result"]["result"], task["reused_from"]) == ("another", None)
    assert geoflow("rerun", job_id[:8], "--load", file, "--update", "--stale").code == 2
