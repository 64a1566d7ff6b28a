"""`gf.check`: each defect of the examples is found, what is sound has no finding, and the kernel is never hurt."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import socket
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

import geoflow as gf
from geoflow import api as default
from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes import loading
from geoflow.tools.check import RULES, CheckReport, outside
from geoflow.tools.check.findings import finding
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "check").glob("*.py"))


@pytest.fixture(autouse=True)
def _imports_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files are imported under their bare names: no other test is to meet them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if "/examples/" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def codes(report: CheckReport) -> set[str]:
    return {found.code for found in report.findings}


def serious(report: CheckReport) -> list[str]:
    return [repr(found) for found in report.findings if found.severity != "note"]


# What is found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_has_the_findings_that_it_expects_and_no_others(path: Path) -> None:
    expected = loading.load(str(path)).EXPECTED
    report = gf.check(str(path))
    assert codes(report) == set(expected), repr(report)
    assert report.ok == all(RULES[code].severity != "error" for code in expected)
    for found in report.findings:
        file, _, line = str(found.where).rpartition(":")
        assert Path(file).parent.samefile(path.parent)
        assert Path(file).read_text().splitlines()[int(line) - 1].strip()


def test_each_code_has_an_example_that_is_named_for_it() -> None:
    named = {path.stem.partition("_")[0].upper() for path in EXAMPLES} - {"ELEVATION", "SLOPES"}
    assert named == set(RULES)


def test_the_page_has_the_catalogue_of_now() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    table = importlib.import_module("check_table")
    text = (ROOT / "docs" / "check.md").read_text("utf-8")
    assert table.page(text) == text, "run: python tools/check_table.py"


@pytest.mark.parametrize("name", ["hello_world", "list_container_contents"])
def test_the_built_in_job_types_have_notes_at_most(name: str) -> None:
    params: dict[str, Any] = {"n": 12} if name == "hello_world" else {"container": str(ROOT / "examples")}
    assert serious(gf.check(name, params=params)) == []
    assert serious(gf.check(name)) == []


def test_the_examples_have_notes_at_most(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"tile_{number}.asc").write_text("1 2 3 4")
    assert serious(gf.check(ROOT / "examples" / "land_cover.py", folder=str(tmp_path))) == []
    report = gf.check(str(ROOT / "examples" / "tile_stats.py"), folder=tmp_path / "tiles", make=12)
    assert serious(report) == []
    assert "GF901" not in codes(report)


def test_the_job_types_of_the_tests_have_notes_at_most() -> None:
    report = gf.check(jobs, tasks=[{"do": "ok"}] * 12, sizes=[1] * 12)
    assert serious(report) == []
    assert report.job_types == tuple(jobs.ALL_JOBS)


def test_S5_all_that_registration_refuses_is_found_at_once() -> None:
    class Poor:
        job_type = "poor"
        stages = [{"number": 2, "name": "scan", "task_type": "scan"}]

        def generate_job_id(self, params: dict[str, Any]) -> str:
            return ""

    report = gf.check(Poor)
    assert {"GF101", "GF103", "GF109", "GF110", "GF112"} <= codes(report)
    assert not report


def test_places_are_lines_of_what_the_user_wrote() -> None:
    steep = gf.JobType("steep")

    @steep.stage
    def find() -> dict[str, Any]:
        return {"none": []}

    @steep.each(find, over="none")
    def slope(item: dict[str, Any]) -> dict[str, Any]:
        return item

    @steep.finalize
    def end(results: list[Any], context: gf.JobExecutionContext) -> dict[str, Any]:
        return {"first": context.task_results[0]["result"]}  # type: ignore[call-overload]

    lines = Path(__file__).read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if '{"first": context' in line)
    [found] = [one for one in gf.check(steep).findings if one.code == "GF205"]
    assert str(found.where).endswith(f"test_check.py:{number}")


def test_code_of_a_script_travels_by_value_and_keeps_its_lines(tmp_path: Path) -> None:
    source = (ROOT / "examples" / "check" / "elevation.py").read_text().replace('["result"]["tiles"]', '["tiles"]')
    script = tmp_path / "script.py"
    script.write_text(source + "\nimport geoflow as gf\nprint(gf.check(Elevation, HANDLERS).to_json())\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path)
    [found] = json.loads(done.stdout)["findings"]
    line = next(at for at, text in enumerate(source.splitlines(), 1) if '[0]["tiles"]' in text)
    assert (found["code"], found["where"]) == ("GF328", f"script.py:{line}")


def kinds(report: CheckReport) -> dict[str, str]:
    return {found.code: found.severity for found in report.findings}


def verdict(report: CheckReport) -> str:
    return " ".join(repr(report).split()).rpartition(" note. " if " 1 note. " in repr(report) else " notes. ")[2]


@pytest.mark.parametrize(("is_given", "code", "severity"), [(True, "GF332", "error"), (False, "GF331", "warning")])
def test_a_first_plan_that_raises_is_an_error_with_given_parameters_and_a_warning_with_a_sample(
    is_given: bool, code: str, severity: str
) -> None:
    class Planned(jobs.Acts):
        job_type = "planned"
        parameters_schema = {"tasks": {"type": "list", "default": []}}

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return {"tasks": list(params.get("tasks", []))}

        @classmethod
        def create_tasks_for_stage(cls, stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
            return [stage["number"]]  # type: ignore[index]

    report = gf.check(Planned, jobs.ALL_HANDLERS, params={"tasks": []} if is_given else None)
    assert kinds(report)[code] == severity
    assert report.ok is not is_given
    assert "stops it" not in verdict(report)


NO_FILE = "<root><open></root>"
MISTAKES: dict[str, tuple[str, bool]] = {
    "a name that nothing defines": ("return measured", True),
    "a module's function that is not there": ("import json\nreturn json.dumped(params)", True),
    "a function of a module that looks it up itself": ("import numpy\nreturn numpy.meen([1])", True),
    "a module that is not there": ("import rasterioo", True),
    "a name that its module lacks": ("from json import dumped", True),
    "a module that is no Python": ("import no_python_at_all", True),
    "a variable without a value yet": ("for one in []:\n    last = one\nreturn last", False),
    "a name of an expression that is data": ("return eval('b1 + b2')", False),
    "a function that data name": ("import json\nreturn getattr(json, params['_name'])", False),
    "data with another syntax": ("import ast\nreturn ast.literal_eval('1 +')", False),
    "XML with another syntax": (f"import xml.etree.ElementTree as et\nreturn et.fromstring({NO_FILE!r})", False),
    "a value that data lack": ("return None.width", False),
    "data that are wrong": ("raise ValueError('no tile')", False),
    "a file that is not there": ("open('no such file')", False),
}


@pytest.mark.parametrize("how", MISTAKES)
def test_a_mistake_that_no_data_would_mend_is_an_error_and_what_the_sample_may_cause_a_warning(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, is_mistake = MISTAKES[how]
    (tmp_path / "no_python_at_all.py").write_text("def broken(:\n")
    (tmp_path / "handlers_of_mine.py").write_text(
        "def act(params):\n    params = {**params, '_name': 'dumped'}\n    " + body.replace("\n", "\n    ")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "handlers_of_mine", raising=False)
    made = importlib.import_module("handlers_of_mine")
    report = gf.check(jobs.Acts, {"act": made.act}, tasks=[{}])
    assert kinds(report)["GF333" if is_mistake else "GF331"] == ("error" if is_mistake else "warning")
    assert codes(report) & {"GF333", "GF331"} == {"GF333" if is_mistake else "GF331"}
    assert report.ok is not is_mistake
    if not is_mistake:
        assert verdict(report) == "It did not come through the trial: mend it, or give other parameters."


@pytest.mark.parametrize("tasks", [3, 12])
def test_a_mistake_in_finalize_is_an_error_also_where_only_some_tasks_were_tried(tasks: int) -> None:
    class Ending(jobs.Acts):
        job_type = "ending"

        @staticmethod
        def finalize_job(context: Any = None) -> dict[str, Any]:
            return {"width": widths_of(context)}  # type: ignore[name-defined] # noqa: F821

    report = gf.check(Ending, jobs.ALL_HANDLERS, tasks=[{}] * tasks)
    [found] = [one for one in report.findings if "finalize" in one.what]
    assert (found.code, found.severity) == ("GF333", "error")


def test_what_failed_with_some_of_the_results_is_told_as_tried() -> None:
    class Counting(jobs.Acts):
        job_type = "counting"

        @staticmethod
        def finalize_job(context: Any = None) -> dict[str, Any]:
            return {"last": context.task_results[11].task_id}

    report = gf.check(Counting, jobs.ALL_HANDLERS, tasks=[{}] * 12)
    [found] = [one for one in report.findings if one.code == "GF902"]
    assert "finalize raises IndexError" in found.what
    assert "finalize was read" not in found.why
    assert "it was tried with the results of the first tasks alone" in found.why
    assert verdict(report) == "No error was found, but not all of it was tried."
    assert codes(gf.check(Counting, jobs.ALL_HANDLERS, tasks=[{}] * 12, run=12)) & {"GF902", "GF340"} == set()


# Job types that ask for no parameters


class AsksForNone(jobs.Acts):
    """What it takes is what its methods read of the class."""

    job_type = "asks_for_none"
    stages = [{"number": 1, "name": "act", "task_type": "act"}]
    tasks: list[dict[str, Any]] = [{}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return {}

    @classmethod
    def create_tasks_for_stage(cls, stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        return jobs.Acts.create_tasks_for_stage(stage, {"tasks": cls.tasks}, job_id, previous_results)


def test_a_job_type_that_takes_no_parameters_is_tried_whole_without_any(tmp_path: Path) -> None:
    class Making(AsksForNone):
        tasks = [{"do": "make", "value": str(tmp_path / "made")}]

    assert "GF901" not in codes(gf.check(Making, jobs.ALL_HANDLERS, run=False))
    assert not (tmp_path / "made").exists()
    report = gf.check(Making, jobs.ALL_HANDLERS)
    assert serious(report) == []
    assert "GF901" not in codes(report)
    assert (tmp_path / "made").exists()


def test_typed_functions_that_take_a_dict_and_read_nothing_of_it_are_tried_whole() -> None:
    made = gf.JobType("reads_nothing")

    @made.stage
    def scan(p: dict) -> list[int]:
        return [1, 2]

    @made.each(scan)
    def broken(number: int) -> dict[str, Any]:
        return {"at": metres(number)}  # type: ignore[name-defined] # noqa: F821

    report = gf.check(made)
    assert "GF901" not in codes(report)
    assert kinds(report)["GF333"] == "error"


def test_what_hands_its_parameters_on_and_lacks_one_has_a_note_that_they_are_not_known(tmp_path: Path) -> None:
    made = gf.JobType("reads_one")

    @made.stage
    def scan(p: dict) -> list[str]:
        return p["text"].split()

    report = gf.check(made)
    assert serious(report) == []
    [found] = [one for one in report.findings if one.code == "GF901"]
    assert "Its parameters are not known. With none: " in found.what
    assert "'text'" in found.what

    class HasDefaults(AsksForNone):
        tasks = [{"do": "make", "value": str(tmp_path / "made")}]

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return {"folder": params.get("folder", "/data")}

    assert codes(gf.check(HasDefaults, jobs.ALL_HANDLERS)) == {"GF901"}
    assert not (tmp_path / "made").exists(), "defaults that only its code has are not tried unasked"


# What is not found


def of_positions(make: Any) -> CheckReport:
    """The check of a job type that measures four tiles, and whose second stage is planned by *make*."""

    def measure(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"tile": params["tile"], "high": len(params["tile"]) * 1000}}

    def publish(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {}}

    class Publish(jobs.Acts):
        job_type = "publish"
        stages = [
            {"number": 1, "name": "measure", "task_type": "measure"},
            {"number": 2, "name": "publish", "task_type": "publish", "parallelism": "fan_out"},
        ]

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return {"tiles": ["a", "bb", "ccc", "dddd"], "crs": "EPSG:4326"}

        @classmethod
        def create_tasks_for_stage(cls, stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
            given = [{"tile": tile} for tile in job_params["tiles"]]
            if stage == 2:
                given = make(job_params, [one["result"] for one in previous_results])
            kind = "measure" if stage == 1 else "publish"
            ids = [f"{job_id[:8]}-{stage}-{index}" for index in range(len(given))]
            return [
                {"task_id": name, "task_type": kind, "parameters": one} for name, one in zip(ids, given, strict=True)
            ]

        @staticmethod
        def finalize_job(context: Any = None) -> dict[str, Any]:
            return {}

    return gf.check(Publish, {"measure": measure, "publish": publish}, params={}, run=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda params, results: [
            {"place": at, "file": f"{at}.tif", "crs": params["crs"], **one} for at, one in enumerate(results)
        ],
        lambda params, results: [{"crs": params["crs"], "all": results}],
        lambda params, results: [{"crs": params["crs"], "some": results[at : at + 3]} for at in range(0, 4, 3)],
        lambda params, results: [
            {"tile": tile, "high": one["high"]} for tile in params["tiles"] for one in results if one["tile"] == tile
        ],
    ],
    ids=["numbered", "all in one", "in batches", "looked up by name"],
)
def test_a_plan_whose_order_harms_nobody_is_not_found(make: Any) -> None:
    assert serious(of_positions(make)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda params, results: [
            {"tile": tile, "high": one["high"]} for tile, one in zip(params["tiles"], results, strict=False)
        ],
        lambda params, results: [
            {"tile": tile, "one": results[at]} for at, tile in enumerate(params["tiles"]) if results[at]
        ],
    ],
    ids=["zip", "index"],
)
def test_S14_a_plan_that_pairs_results_by_their_position_is_found(make: Any) -> None:
    assert codes(of_positions(make)) >= {"GF325"}


class Forgiving(jobs.Acts):
    """Its finalize is made for objects and dicts, its handler for what is expected alone."""

    job_type = "forgiving"
    stages = [{"number": 1, "name": "act", "task_type": "act"}]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        given = context.parameters if hasattr(context, "parameters") else context.job_parameters
        statuses = [task["status"] if isinstance(task, dict) else str(task.status) for task in context.task_results]
        for task in [{"status": "queued"}]:
            statuses.append(task["status"])
        return {"statuses": statuses, "given": len(given)}


def careful(params: dict[str, Any]) -> dict[str, Any]:
    try:
        float(params.get("value") or 0)
    except ConnectionError:
        raise
    except Exception as exc:
        return {"success": False, "error": str(exc), "retryable": False}
    return {"success": True, "result": {}}


def test_code_that_looks_before_it_takes_is_not_found() -> None:
    report = gf.check(Forgiving, {"act": careful}, params={"tasks": [{"value": 1}]})
    assert serious(report) == []


class Matching(jobs.ThreeActs):
    """Its plan has a branch for a number that is not that of a stage."""

    job_type = "matching"

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        match len(job_params["tasks"]):
            case 3:
                return super().create_tasks_for_stage(stage, job_params, job_id, previous_results)
        match stage:
            case 3:
                raise ValueError("the engine makes this one")
        if stage == 3:
            return []
        return super().create_tasks_for_stage(stage, job_params, job_id, previous_results)


def test_S15_only_a_branch_that_makes_tasks_for_a_fan_in_is_found() -> None:
    assert serious(gf.check(Matching, jobs.ALL_HANDLERS, params={"tasks": [{}]})) == []


def test_what_job_types_share_is_told_once() -> None:
    def tell(params: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"success": True}

    made = ModuleType("made")
    made.ALL_JOBS = {"acts": jobs.Acts, "two_acts": jobs.TwoActs}  # type: ignore[attr-defined]
    report = gf.check(made, {"act": tell})
    assert [found.code for found in report.findings].count("GF120") == 1


@pytest.mark.parametrize(("name", "found"), [("job_parameters", {"GF205"}), ("parameters", set())])
def test_where_a_handler_fails_only_what_no_result_would_mend_is_told_of_finalize(name: str, found: set[str]) -> None:
    class Ending(jobs.Acts):
        job_type = "ending"

        @staticmethod
        def finalize_job(context: Any = None) -> dict[str, Any]:
            return {"last": getattr(context, name)["nothing"]}

    report = gf.check(Ending, jobs.ALL_HANDLERS, tasks=[{"do": "fail"}])
    assert codes(report) & {"GF205", "GF340", "GF341"} == found


def test_a_branch_of_a_handler_that_is_not_tried_is_read() -> None:
    def early(params: dict[str, Any]) -> dict[str, Any] | None:
        if params.get("do") == "nothing":
            return None
        if params.get("do") == "something":
            return {"result": {}}
        return {"success": True, "result": {}}

    report = gf.check(jobs.Acts, {"act": early}, tasks=[{}])
    assert [found.code for found in report.findings if found.severity == "error"] == ["GF202", "GF202"]


LOG = logging.getLogger("users.own")


class Touching(jobs.Acts):
    """Its plan does what the parameter says."""

    job_type = "touching"

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        match job_params["plan"]:
            case "read":
                Path(job_params["path"]).read_text()
            case "list":
                os.listdir(job_params["path"])
            case "write":
                os.mkdir(job_params["path"])
            case "run":
                subprocess.run(["true"], check=True)
            case "connect":
                socket.create_connection(("127.0.0.1", 9), timeout=1)
            case "log":
                LOG.warning("planning")
            case "import":
                importlib.import_module("wave")
            case "zone":
                zoneinfo.ZoneInfo("Europe/Berlin")
            case "look":
                Path(job_params["path"]).exists()
        return super().create_tasks_for_stage(stage, {**job_params, "plan": None}, job_id, previous_results)


@pytest.mark.parametrize("plan", ["read", "list", "write", "run", "connect"])
def test_a_plan_that_touches_what_is_outside_is_found_at_its_line(plan: str, tmp_path: Path) -> None:
    path = tmp_path / "new" if plan == "write" else tmp_path if plan == "list" else Path(__file__).with_name("x.txt")
    given = {"tasks": [{}], "plan": plan, "path": str(path)}
    [found] = [one for one in gf.check(Touching, jobs.ALL_HANDLERS, params=given).findings if one.code == "GF311"]
    lines = Path(__file__).read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if f'case "{plan}":' in line) + 1
    assert str(found.where).endswith(f"test_check.py:{number}")


@pytest.mark.parametrize("plan", ["log", "import", "zone", "look"])
def test_a_plan_that_only_imports_logs_or_looks_is_not_found(plan: str, tmp_path: Path) -> None:
    given = {"tasks": [{}], "plan": plan, "path": str(tmp_path)}
    assert serious(gf.check(Touching, jobs.ALL_HANDLERS, params=given)) == []


class Ordered(jobs.Acts):
    """Its id is made of the parameters as they come; its validation makes one of them by itself."""

    job_type = "ordered"
    fixed = False

    @classmethod
    def validate_job_parameters(cls, params: dict[str, Any]) -> dict[str, Any]:
        return {"tasks": [{}], "crs": params["crs"], "srid": int(params["crs"])} if cls.fixed else params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        counted = {key: value for key, value in params.items() if key != "srid"}
        return hashlib.sha256(f"{cls.job_type}{counted}".encode()).hexdigest()


class InFixedOrder(Ordered):
    job_type = "in_fixed_order"
    fixed = True


def test_S8_an_id_that_depends_on_the_order_of_keys_is_found_only_where_validation_lets_it() -> None:
    assert "GF302" in codes(gf.check(Ordered, jobs.ALL_HANDLERS, tasks=[{}], crs="4326"))
    assert serious(gf.check(InFixedOrder, jobs.ALL_HANDLERS, crs="4326")) == []


class OfDataset(jobs.Acts):
    """One of its parameters is called as one of the keys that production adds."""

    job_type = "of_dataset"

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        if not params["dataset_id"]:
            raise ValueError("dataset_id is missing")
        return {"tasks": [{}], "dataset_id": params["dataset_id"]}


def test_a_parameter_that_is_called_as_one_of_productions_keys_is_the_users_own() -> None:
    assert "GF305" not in codes(gf.check(OfDataset, jobs.ALL_HANDLERS, dataset_id="d1"))


# What the trial does to the kernel: nothing


class Hanging(jobs.Acts):
    job_type = "hanging"
    stages = [{"number": 1, "name": "act", "task_type": "act"}]


def test_a_trial_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    before = set(psutil.Process().children(recursive=True))
    tasks = [{"do": "child then hang", "value": str(child)}]
    report = gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": tasks}, seconds=3)
    [found] = [one for one in report.findings if one.code == "GF903"]
    assert "stopped after 3.0 s, in the handler act" in found.what
    assert report.ok
    number = int(child.read_text())
    wait_until(lambda: not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    started = set(psutil.Process().children(recursive=True)) - before
    assert all(
        "forkserver" in " ".join(one.cmdline()) or "resource_tracker" in " ".join(one.cmdline()) for one in started
    )


def test_a_handler_that_forks_and_returns_twice_is_told_of_once(tmp_path: Path) -> None:
    tasks = [{"do": "fork and both return", "value": str(tmp_path / "pid")}] * 3
    report = gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": tasks})
    assert codes(report) <= {"GF305", "GF327"}


@pytest.mark.parametrize(
    ("plan", "what"), [("die", "SIGKILL, in the method create_tasks_for_stage"), ("exit", "exit code 3")]
)
def test_a_plan_that_ends_its_process_is_found(plan: str, what: str) -> None:
    report = gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": [{}], "plan": plan})
    assert [what in one.what for one in report.findings if one.code == "GF903"] == [True]


def test_nothing_of_a_trial_is_left_in_this_process(tmp_path: Path) -> None:
    tasks = [{"do": "change process", "value": str(tmp_path)}]
    here, out = os.getcwd(), sys.stdout
    gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": tasks})
    assert (os.getcwd(), sys.stdout) == (here, out)
    assert not outside.hook.cache_info().currsize


def test_without_run_no_handler_runs(tmp_path: Path) -> None:
    made = tmp_path / "made"
    tasks = [{"do": "make", "value": str(made)}]
    assert gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": tasks}, run=False).ok
    assert not made.exists()
    assert gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": tasks}).ok
    assert made.exists()


def test_a_trial_runs_only_the_first_tasks(tmp_path: Path) -> None:
    tasks = [{"do": "make", "value": str(tmp_path / f"made_{number}")} for number in range(6)]
    gf.check(Hanging, jobs.ALL_HANDLERS, params={"tasks": tasks}, run=2)
    assert len(list(tmp_path.iterdir())) == 2


# What may be named


def test_a_name_is_looked_for_in_the_default_session_where_there_is_one(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default, "_session", None)
    with pytest.raises(DefinitionError, match="Unknown job type 'two_acts'"):
        gf.check("two_acts")
    assert default._session is None
    monkeypatch.setattr(default, "_session", open_session())
    assert gf.check("two-acts", tasks=[{}]).job_types == ("two_acts",)
    assert "GF112" not in codes(gf.check(jobs.TwoActs))  # its handlers are known there


def test_one_job_type_of_a_file_may_be_picked() -> None:
    path = str(Path(jobs.__file__))
    assert gf.check(f"{path}:acts", tasks=[{}]).job_types == ("acts",)
    with pytest.raises(DefinitionError, match="no job type 'nothing' in it; there is largest_acts, acts"):
        gf.check(f"{path}:nothing")
    with pytest.raises(DefinitionError, match="no ALL_JOBS"):
        gf.check(ModuleType("empty"))
    with pytest.raises(ParameterError, match="give a number of tasks"):
        gf.check("hello_world", run=-1)


def test_a_job_type_without_stages_is_a_finding() -> None:
    report = gf.check(gf.JobType("nothing_yet"))
    assert codes(report) == {"GF110"}
    assert "has no stages" in report.findings[0].what


def test_handlers_that_are_no_dict_are_a_finding() -> None:
    assert "GF100" in codes(gf.check(jobs.Acts, [jobs.act]))  # type: ignore[arg-type]


# How it is shown


@pytest.fixture
def report() -> CheckReport:
    found = finding("GF331", "acts", "It says <script>alert(1)</script> of token=abc\x1b[31m", "jobs.py:3")
    return CheckReport(
        ["acts"], [finding("GF341", "acts", "Some <b>note</b>."), found, finding("GF101", "acts", "x " * 99)]
    )


def test_S44_S45_a_report_is_escaped_masked_and_has_errors_first(report: CheckReport) -> None:
    html, text = report._repr_html_(), repr(report)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "abc" not in text + html + report.to_json()
    assert "\x1b" not in text
    assert [one.severity for one in report.findings] == ["error", "warning", "note"]
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.splitlines()[-1] == "acts: 1 error, 1 warning, 1 note. Mend the errors, then check again."


def test_a_report_is_a_frame_and_a_document(report: CheckReport) -> None:
    frame = report.to_frame()
    assert list(frame["code"]) == ["GF101", "GF331", "GF341"]
    assert list(frame.columns) == ["code", "severity", "where", "job_type", "what", "why", "remedy"]
    assert json.loads(report.to_json())["findings"] == json.loads(frame.to_json(orient="records"))
    assert not report
    empty = CheckReport(["acts"], [])
    assert empty
    assert len(empty.to_frame()) == 0
    assert repr(empty) == "acts: 0 errors, 0 warnings, 0 notes. Nothing was found."


def test_a_secret_parameter_that_is_refused_is_not_shown() -> None:
    class Refusing(jobs.Acts):
        job_type = "refusing"

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            raise ValueError("no")

        @classmethod
        def generate_job_id(cls, params: dict[str, Any]) -> str:
            return hashlib.sha256(str(params).encode()).hexdigest()

    report = gf.check(Refusing, jobs.ALL_HANDLERS, api_token="abc123")
    assert "abc123" not in repr(report)
    assert codes(report) == {"GF901"}
