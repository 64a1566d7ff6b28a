"""`gf.JobType` in notebooks and files: cells run again, code that travels to workers, and a real kernel."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import DefinitionError, ParameterError
from tests.helpers.sessions import OpenSession

EXAMPLE = Path(__file__).parents[2] / "examples" / "tile_stats.py"

# In a notebook: cells are run again, in any order


class Notebook:
    """Cells that are run in one namespace, as `__main__` of a notebook is."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "gf": gf, **names}
        self.cells = 0
        self.run("""
            from typing import Any
            from pydantic import BaseModel
            class Params(BaseModel):
                n: int = 2
            class Tile(BaseModel):
                name: str
                width: int = 1
            t = gf.JobType("tile_stats", params=Params)
        """)

    def run(self, source: str) -> Any:
        """Run a cell; the value of its last line, if that is an expression in brackets after ``_ =``."""
        self.cells += 1
        source = textwrap.dedent(source)
        exec(compile(source, f"/tmp/ipykernel_1/{self.cells}.py", "exec"), self.names)
        return self.names.get("_")


SCAN = """
    @t.stage
    def scan(p: Params) -> list[Tile]:
        return [Tile(name=f"t{i}", width=i) for i in range(p.n)]
"""
STAT = """
    @t.each(scan, key="name")
    def stat(tile: Tile, p: Params) -> float:
        return tile.width / 2
"""
MERGE = """
    @t.reduce(stat)
    def merge(stats: list[float]) -> dict:
        return {"sum": sum(stats)}
"""


@pytest.fixture
def notebook(open_session: OpenSession) -> Notebook:
    book = Notebook(session=open_session(workers=1))
    for cell in (SCAN, STAT, MERGE):
        book.run(cell)
    return book


def refused(book: Notebook, source: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        book.run(source)
    return str(caught.value)


def test_a_cell_that_runs_again_replaces_its_stage_also_for_jobs_that_are_taken_up(notebook: Notebook) -> None:
    notebook.run(STAT.replace("tile.width / 2", "1 / tile.width").replace('"name"', '"name", retries=0'))
    job = notebook.run("_ = t.run(n=3, session=session)")
    assert "ZeroDivisionError" in job.error
    notebook.run(STAT.replace("tile.width / 2", "1 + tile.width"))
    assert job.retry_failed().result() == {"sum": 1 + 1 / 1 + 1 / 2}, "only the failed task ran again"
    assert notebook.run("_ = session.run('tile_stats', n=2).result()") == {"sum": 3.0}, "by name it is the newest too"


def test_running_all_cells_again_makes_a_job_type_that_takes_the_place_of_the_old_one(notebook: Notebook) -> None:
    notebook.run("_ = t.run(n=3, session=session).result()")
    notebook.run("t = gf.JobType('tile_stats', params=Params)")
    with pytest.raises(DefinitionError, match="tile_stats has no stages"):
        notebook.run("session.run('tile_stats', n=5)")
    for cell in (SCAN, STAT.replace("/ 2", "* 10"), MERGE):
        notebook.run(cell)
    assert notebook.run("_ = session.run('tile_stats', n=4).result()") == {"sum": 60.0}


def test_a_stage_that_was_renamed_takes_the_place_of_the_old_one_with_a_warning(notebook: Notebook) -> None:
    with pytest.warns(UserWarning, match="half and stat both follow scan") as warned:
        notebook.run(STAT.replace("def stat", "def half"))
    assert str(warned[0].message) == (
        "tile_stats: half and stat both follow scan, but stages come one after another, so only half can stay: to keep "
        "both, decorate stat with @tile_stats.each(half)."
    )
    assert warned[0].filename == "/tmp/ipykernel_1/5.py"
    assert refused(notebook, "t.run(session=session)") == (
        "tile_stats: merge follows stat, which is no stage any more: run its cell again with one that is there: scan, "
        "half."
    )
    assert "stat is no stage to follow. Its stages are scan, half" in refused(notebook, MERGE)
    notebook.run(MERGE.replace("reduce(stat)", "reduce(half)"))
    assert notebook.run("_ = t.run(n=3, session=session).result()") == {"sum": 1.5}


def test_a_stage_may_be_put_between_two_others(notebook: Notebook) -> None:
    with pytest.warns(UserWarning, match="to keep both, decorate stat with @tile_stats.each"):
        notebook.run("""
            @t.each(scan)
            def wide(tile: Tile) -> list[Tile]:
                return [tile] * 2
        """)
    notebook.run(STAT.replace('scan, key="name"', "wide"))
    assert notebook.run("_ = t.run(n=3, session=session).result()") == {"sum": 3.0}


def test_a_stage_that_no_longer_fits_the_next_is_told_at_once_and_stops_the_job(notebook: Notebook) -> None:
    told = "tile_stats: stat takes tile: Tile, but scan gives it str (it returns list[str]). "
    with pytest.warns(UserWarning, match=re.escape(told) + ".*Run the cell of stat again, made to fit"):
        notebook.run("""
            @t.stage
            def scan(p: Params) -> list[str]:
                return ["a"]
        """)
    assert refused(notebook, "t.run(session=session)").startswith(told)


def test_classes_whose_cells_run_again_are_still_the_same_to_older_stages(notebook: Notebook) -> None:
    notebook.run("""
        class Tile(BaseModel):
            name: str
            width: int = 1
            height: int = 5
        class Params(BaseModel):
            n: int = 2
            by: int = 1
    """)
    notebook.run(STAT.replace("tile.width / 2", "tile.height * p.by"))
    assert notebook.run("_ = t.run(n=2, by=3, session=session).result()") == {"sum": 30.0}


def test_a_function_that_takes_a_class_whose_cell_ran_again_with_more_is_told_of(notebook: Notebook) -> None:
    tile = "class Tile(BaseModel):\n    name: str\n    width: int = 1\n"
    notebook.run(tile)
    notebook.run(STAT)  # the class is what it was
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notebook.run(tile)
        notebook.run("_ = t.run(n=3, session=session)")
    notebook.run(tile + "    height: int = 7\n")
    told = "tile_stats: stat takes tile: Tile as it was before its cell ran again, without what is new in it."
    with pytest.warns(UserWarning, match=re.escape(told)):
        notebook.run("_ = t.run(n=4, session=session)")


@pytest.mark.parametrize("header", ["class Half(BaseModel):", "@dataclass\nclass Half:"])
def test_a_stage_with_an_older_class_that_can_no_longer_be_made_is_told_of_at_once(
    notebook: Notebook, header: str
) -> None:
    def stat(field: str) -> str:
        source = STAT.replace("-> float", "-> Half").replace("tile.width / 2", f"Half({field}=tile.width)")
        return f"from dataclasses import dataclass\n{header}\n    {field}: int\n{textwrap.dedent(source)}"

    merge = MERGE.replace("list[float]", "list[Half]").replace("sum(stats)", "sum(stat.{} for stat in stats)")
    with pytest.warns(UserWarning, match="Run the cell of merge again, made to fit"):
        notebook.run(stat("half"))
    notebook.run(merge.replace("{}", "half"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notebook.run(stat("half"))  # the same again: nothing to tell
    told = (
        "tile_stats: merge takes stats: list[Half] as it was before its cell ran again, and stat does not return half "
        "any more. Run the cell of merge again."
    )
    with pytest.warns(UserWarning, match=re.escape(told)):
        notebook.run(stat("part"))
    notebook.run(merge.replace("{}", "part"))
    assert notebook.run("_ = t.run(n=3, session=session).result()") == {"sum": 3}


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_what_are_no_parameters_is_said_in_words(notebook: Notebook, verb: str) -> None:
    with pytest.raises(ParameterError, match=r"^'data' is str, and no parameters: give them by name"):
        notebook.run(f"t.{verb}('data', session=session)")


def test_a_dataclass_of_a_cell_crosses_as_a_model_does(notebook: Notebook) -> None:
    notebook.run("""
        from dataclasses import dataclass, field
        @dataclass
        class Stat:
            half: float
            seen: list[int] = field(default_factory=list)
    """)
    with pytest.warns(UserWarning, match="Run the cell of merge again, made to fit"):
        notebook.run(STAT.replace("-> float", "-> Stat").replace("tile.width / 2", "Stat(tile.width / 2)"))
    notebook.run(MERGE.replace("list[float]", "list[Stat]").replace("sum(stats)", "sum(stat.half for stat in stats)"))
    assert notebook.run("_ = t.run(n=3, session=session).result()") == {"sum": 1.5}


def test_in_a_circle_no_stage_can_follow(notebook: Notebook) -> None:
    text = refused(notebook, "@t.each(scan)\ndef scan(x): return []")
    assert text == "tile_stats: scan cannot follow scan, which follows it or is gone."
    text = refused(notebook, "@t.reduce(stat)\ndef scan(x): return []")
    assert text == "tile_stats: scan cannot follow stat, which follows it or is gone."
    assert notebook.run("_ = t.run(n=3, session=session).result()") == {"sum": 1.5}, "what was refused changed nothing"


DEFINITIONS = [
    ("gf.JobType('Tile Stats!')", "A job type cannot be called 'Tile Stats!'"),
    ("gf.JobType('2_tiles')", "A job type cannot be called '2_tiles': use a letter, then letters, digits and '_'."),
    ("gf.JobType('x', params={'n': int})", "x: params={'n': <class 'int'>} is no pydantic model and no dataclass"),
    (
        "@t.each\ndef f(x): ...",
        "f is no stage to follow. Its stages are scan, stat, merge: write, say, @tile_stats.each(",
    ),
    ("@t.reduce('gone')\ndef f(x): ...", "gone is no stage to follow"),
    ("@t.stage\nasync def f(p): ...", "tile_stats: f is async"),
    ("@t.stage\ndef f(p): yield 1", "tile_stats: f is a generator: return a list"),
    ("t.stage(lambda p: [])", "is a lambda: write it as a def"),
    ("@t.stage\nclass f: ...", "tile_stats: f is type, not a function"),
    ("@t.stage\ndef f(*args): ...", "f takes *args: name all that it takes"),
    (
        "@t.stage\ndef f(p: Params, folder: str): ...",
        "f takes folder: str, which nothing is given for. It is given the parameters of the job (Params), and a "
        "context: gf.TaskContext where it asks for one.",
    ),
    ("@t.stage\ndef f(p: Params, q: Params): ...", "f takes its params twice: leave one out."),
    ("@t.stage\ndef f(p: int): ...", "f takes p: int, which nothing is given for"),
    ("@t.stage\ndef f(p: 'Parms'): ...", "f has an annotation that cannot be read (name 'Parms' is not defined)"),
    ("@t.stage(retries=-1)\ndef f(p): ...", "retries: Input should be greater than or equal to 0 (got -1)"),
    ("@t.stage(workers=0)\ndef f(p): ...", "workers: Input should be greater than or equal to 1 (got 0)"),
    ("@t.stage(timeout=0)\ndef f(p): ...", "timeout: Input should be greater than 0 (got 0)"),
    ("@t.stage(on_failure='go')\ndef f(p): ...", "on_failure: Input should be 'drain', 'stop' or 'continue' (got"),
    (
        "@t.stage(retry=3)\ndef f(p): ...",
        "stage has the options retries, permanent, transient, timeout, idle_timeout, workers, limit,",
    ),
    (
        "@t.each(scan, kee='name')\ndef f(tile): ...",
        "each has the options key, over, size, retries, permanent, transient, timeout, idle_timeout, workers, limit,",
    ),
    ("@t.each(scan)\ndef f(tile: int): ...", "f takes tile: int, but scan gives it Tile (it returns list[Tile])"),
    ("@t.each(scan)\ndef f(p: Params): ...", "f takes no item. It is given its item, then the parameters of the job"),
    ("@t.each(scan, key='nam')\ndef f(tile: Tile): ...", "key='nam' is no field of Tile: did you mean 'name'?"),
    ("@t.each(scan, key=3)\ndef f(tile: Tile): ...", "key=3 is neither the name of a field nor a function"),
    ("@t.each(scan, over='tiles')\ndef f(tile): ...", "over='tiles' names a field, but list[Tile] has none"),
    ("@t.each(merge)\ndef f(x): ...", "f runs for each item of what merge returns, which is dict and no list"),
    (
        "import threading\n@t.each(scan)\ndef f(x: threading.Event): ...",
        "f takes x: Event, which cannot be made from JSON",
    ),
    ("@t.reduce(stat)\ndef f(stats: list[str]): ...", "f takes stats: list[str], but stat gives it list[float]"),
    (
        "@t.each(scan)\ndef f(x, c: gf.JobExecutionContext): ...",
        "f takes c: JobExecutionContext, which nothing is given",
    ),
    ("@t.finalize\ndef f(x) -> list: ...", "f returns list, but the result of a job is a dict"),
    ("@t.finalize\ndef f(x: list[int]) -> dict: ...", "f takes x: list[int], but merge gives it dict"),
    (
        "u = gf.JobType('u')\n@u.stage\ndef f(p: Params): ...",
        "u: f takes p: Params, which nothing is given for. It is given the parameters of the job (a dict, as "
        "gf.JobType(...) has no params=)",
    ),
    ("u = gf.JobType('u')\n@u.each('scan')\ndef f(p): ...", "It has none yet: begin with @u.stage."),
]


@pytest.mark.parametrize(("source", "message"), DEFINITIONS)
def test_what_cannot_work_is_refused_when_its_cell_runs_and_changes_nothing(source: str, message: str) -> None:
    book = Notebook()
    for cell in (SCAN, STAT, MERGE):
        book.run(cell)
    before = repr(book.names["t"])
    assert message in refused(book, source)
    assert repr(book.names["t"]) == before


def test_how_a_job_type_shows_itself(notebook: Notebook) -> None:
    assert repr(notebook.names["t"]) == (
        "gf.JobType tile_stats(Params)\n"
        "  1 scan: one task\n"
        "  2 stat: one task for each item of scan\n"
        "  3 merge: one task over all of stat"
    )
    assert repr(gf.JobType("empty")) == "gf.JobType empty()\n  no stages yet"


# How it travels


def test_S5_a_variable_that_cannot_travel_is_refused_by_name_when_the_cell_runs(notebook: Notebook) -> None:
    notebook.run("""
        import sqlite3
        connection = sqlite3.connect(":memory:")
        def ask():
            return connection.execute("select 1").fetchone()
    """)
    assert refused(notebook, STAT.replace("tile.width / 2", "ask()[0]")) == (
        "tile_stats: stat uses 'connection', a Connection, which cannot travel to a worker process: make it inside the "
        "handler, from plain values in the parameters."
    )
    assert refused(notebook, STAT.replace('"name"', "lambda tile: ask()")).startswith(
        "tile_stats: key= of stat uses 'connection', a Connection"
    )
    assert refused(notebook, "@t.finalize\ndef summary(x): return ask()").startswith(
        "tile_stats: summary uses 'connection', a Connection"
    )
    notebook.run("connection.close()")


def test_S5_a_model_that_cannot_travel_is_refused_with_its_own_name(notebook: Notebook) -> None:
    text = refused(
        notebook,
        """
        import threading
        from typing import ClassVar
        class Tile(BaseModel):
            name: str
            lock: ClassVar[Any] = threading.Lock()
        @t.each(scan)
        def stat(tile: Tile) -> float:
            return 1.0
        """,
    )
    assert text.startswith("tile_stats: Tile, in the annotations of stat, uses 'lock', a lock")


def test_S7_a_variable_that_has_become_one_that_cannot_travel_is_refused_at_submission(notebook: Notebook) -> None:
    notebook.run("import threading\nfactor = 1")
    notebook.run(STAT.replace("/ 2", "* factor"))
    assert notebook.run("_ = t.run(n=3, session=session).result()") == {"sum": 3.0}
    notebook.run("factor = 2")
    assert notebook.run("_ = t.run(n=4, session=session).result()") == {"sum": 12.0}, "what it is when the job is run"
    notebook.run("factor = threading.Lock()")
    assert "the handler of 'tile_stats_stat' uses 'factor', a lock, which cannot travel" in refused(
        notebook, "t.run(n=5, session=session)"
    )
    assert len(notebook.names["session"].jobs()) == 2


def test_S7_so_is_one_of_a_class_that_was_registered_before_it_changed(open_session: OpenSession) -> None:
    notebook = Notebook(session=open_session(workers=0))
    notebook.run("""
        import threading
        held = 1
        def act(params):
            return {"success": True, "result": held}
        from tests.helpers.jobs import Acts as Base
        class Acts(Base):
            job_type = "acts"
        session.register(Acts, handlers={"act": act})
        held = threading.Lock()
    """)
    assert refused(notebook, "session.run('acts', tasks=[{}])") == (
        "act uses 'held', a lock, which cannot travel to a worker process: make it inside the handler, from plain "
        "values in the parameters."
    )
    assert len(notebook.names["session"].jobs()) == 0


def test_what_weighs_more_than_50_MB_is_refused_and_more_than_1_MB_warned_of_once_by_name(notebook: Notebook) -> None:
    notebook.run("dem, small = bytes(60_000_000), bytes(10)")
    assert refused(notebook, STAT.replace("tile.width / 2", "len(dem) + len(small)")) == (
        "tile_stats: stat uses 'dem' (60.0 MB), which would be sent to every worker process; at most 50.0 MB can be: "
        "write it to a file, give its path in the parameters, and read it inside the handler."
    )
    notebook.run("dem, mask = bytes(30_000_000), bytes(29_000_000)")
    assert "stat uses 'dem' (30.0 MB) and 'mask' (29.0 MB), which would be sent" in refused(
        notebook, STAT.replace("tile.width / 2", "len(dem) + len(mask)")
    )
    notebook.run("dem = bytes(3_000_000)")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        notebook.run(STAT.replace("tile.width / 2", "float(len(dem))"))
        notebook.run("_ = t.run(n=1, session=session).result()")
    assert [str(one.message) for one in warned] == [
        "stat uses 'dem' (3.0 MB), which is sent to every worker process. To be faster, write it to a file, give its "
        "path in the parameters, and read it inside the handler."
    ]
    assert warned[0].filename.startswith("/tmp/ipykernel_1/"), "it points at the cell"


# In a file

MODULE = """
import os
import threading
import geoflow as gf
from pydantic import BaseModel

LOCK = threading.Lock()  # harmless: a worker imports the module and has its own

class Params(BaseModel):
    n: int = 2

made = gf.JobType("made_in_a_file", params=Params)

@made.stage
def scan(p: Params) -> list[int]:
    return list(range(p.n))

@made.each(scan, key=lambda item: item * 10)
def work(item: int) -> str:
    with LOCK:
        return __name__
"""


@pytest.fixture
def module_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "flow_of_a_user.py"
    path.write_text(MODULE)
    yield path
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("listed", ["", "ALL_JOBS = {made.name: made}", "ALL_JOBS = {'made_in_a_file': made}"])
def test_a_job_type_of_a_file_is_found_and_its_functions_are_imported_by_workers(
    open_session: OpenSession, module_file: Path, listed: str
) -> None:
    module_file.write_text(MODULE + listed)
    session = open_session()
    assert session.register(str(module_file)) == ["made_in_a_file"]
    job = session.run("made_in_a_file", n=3)
    assert job.result() == {"count": 3, "results": ["flow_of_a_user"] * 3}
    assert [task.partition("-")[2] for task in job.tasks()["task_id"]] == ["scan", "work-0", "work-10", "work-20"]


def test_a_file_that_was_edited_and_loaded_again_runs_as_it_is_now(
    open_session: OpenSession, module_file: Path
) -> None:
    session = open_session(workers=1)
    session.register(str(module_file))
    assert session.run("made_in_a_file", n=1).result()["results"] == ["flow_of_a_user"]
    module_file.write_text(MODULE.replace("return __name__", "return 'edited ' + __name__"))
    session.register(importlib.reload(sys.modules[module_file.stem]))
    assert session.run("made_in_a_file", n=2).result()["results"] == ["edited flow_of_a_user"] * 2


def test_a_stage_of_a_file_that_a_notebook_replaces_travels_by_value(
    open_session: OpenSession, module_file: Path
) -> None:
    session = open_session()
    session.register(str(module_file))
    module = sys.modules[module_file.stem]
    notebook = Notebook(session=session, made=module.made, scan=module.scan)
    notebook.run("@made.each(scan)\ndef work(item: int) -> str:\n    return f'{__name__} {item}'")
    assert notebook.run("_ = session.run('made_in_a_file', n=2).result()")["results"] == ["__main__ 0", "__main__ 1"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "@made.each(scan)\ndef other(x: int): ...",
            "other and work both follow scan, but stages come one after another, so only other can stay: to keep both, "
            "decorate work with @made_in_a_file.each(other).",
        ),
        ("@made.stage\ndef other(p): ...", "other and scan are both the first stage"),
    ],
)
def test_in_a_file_no_stage_replaces_one_of_another_name(
    open_session: OpenSession, module_file: Path, source: str, message: str
) -> None:
    module_file.write_text(MODULE + source)
    with pytest.raises(DefinitionError) as caught:
        open_session(workers=0).register(str(module_file))
    assert message in str(caught.value)


def test_job_types_of_one_name_that_a_function_makes_are_kept_apart(open_session: OpenSession) -> None:
    def make(factor: int) -> gf.JobType:
        t = gf.JobType("of_many")

        @t.stage
        def scan(p) -> dict[str, int]:
            return {"n": p["n"] * factor}

        return t

    one, two = make(1), make(2)
    session = open_session(workers=0)
    session.register(one)
    assert session.run("of_many", n=3).result() == {"n": 3}
    assert two.run(n=4, session=session).result() == {"n": 8}


def test_a_session_is_the_default_one_unless_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOFLOW_STORE", str(tmp_path / "default.db"))
    monkeypatch.setenv("GEOFLOW_WORKERS", "0")
    monkeypatch.setattr("geoflow.api._session", None)
    t = gf.JobType("by_default")

    @t.stage
    def scan(p) -> dict[str, Any]:
        return p

    assert t.run(n=1).result() == {"n": 1}
    assert t.submit(n=2).result() == {"n": 2}
    assert gf.jobs()["job_type"].tolist() == ["by_default"] * 2
    gf.default_session().close()


def test_the_example_runs_in_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoflow", "run", str(EXAMPLE), "folder=elevation", "make=5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["result"]["tiles"] == 5
    assert -100 < told["result"]["low"] <= told["result"]["mean"] <= told["result"]["high"] < 1300


# In a real notebook

CELLS = [
    """
import geoflow as gf, os, threading
from typing import Annotated
from pydantic import BaseModel
FACTORS = {"north": 2, "south": 3}
KERNEL = os.getpid()
class Params(BaseModel):
    sides: list[str]
    note: Annotated[str, gf.identity(False)] = ""
class Tile(BaseModel):
    side: str
    cells: list[int]
def weighed(tile):
    return sum(tile.cells) * FACTORS[tile.side]
session = gf.open("work.db", workers=2, display="none")
t = gf.JobType("weights", params=Params)
""",
    """
@t.stage
def scan(p: Params) -> list[Tile]:
    return [Tile(side=side, cells=[1, 2, 3]) for side in p.sides]
""",
    """
@t.each(scan, key="side")
def weigh(tile: Tile) -> dict:
    print("weighing", tile.side)
    return {"weight": weighed(tile), "apart": os.getpid() != KERNEL}
""",
    """
@t.finalize
def summary(weights: list[dict], p: Params) -> dict:
    apart = all(found["apart"] for found in weights)
    return {side: found["weight"] for side, found in zip(p.sides, weights)} | {"apart": apart}
""",
    "job = t.run(sides=['north', 'west'], session=session); print(job.error)",
    "print(job.errors().traceback.iloc[0])",
    "FACTORS['west'] = 10",
    "print(job.retry_failed().result())",
    """
@t.each(scan, key="side")
def weigh(tile: Tile) -> dict:
    return {"weight": -weighed(tile), "apart": True}
""",
    "print(t.run(sides=['south'], session=session).result())",
    "LOCK = threading.Lock()",
    """
@t.each(scan, key="side")
def weigh(tile: Tile) -> dict:
    with LOCK:
        return {}
""",
    "print(t.run(sides=['north', 'south'], session=session).result()); session.close()",
]


@pytest.mark.slow
def test_a_job_type_of_cells_with_helpers_models_and_globals_runs_in_workers_of_a_real_kernel(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    client = nbclient.NotebookClient(
        book, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    path = os.pathsep.join([str(Path(gf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    client.execute(env={**os.environ, "PYTHONPATH": path})

    def told(index: int) -> str:
        outputs = book.cells[index].outputs
        return "".join(one.get("text", "") or f"{one.get('ename')}: {one.get('evalue')}" for one in outputs).strip()

    assert [told(index) for index in (0, 1, 2, 3)] == [""] * 4
    assert "KeyError: 'west'" in told(4)
    assert "return sum(tile.cells) * FACTORS[tile.side]" in told(5), "the cell's own line"
    assert "geoflow" not in told(5), "and none of ours"
    assert told(7) == "{'north': 12, 'west': 60, 'apart': True}"
    assert told(9) == "{'south': -18, 'apart': True}"
    assert told(11) == (
        "DefinitionError: weights: weigh uses 'LOCK', a lock, which cannot travel to a worker process: make it inside "
        "the handler, from plain values in the parameters."
    )
    assert told(12) == "{'north': -12, 'south': -18, 'apart': True}", "what was refused replaced nothing"


def test_a_run_in_this_process_leaves_the_job_type_as_it_was(notebook: Notebook, open_session: OpenSession) -> None:
    t: gf.JobType = notebook.names["t"]
    before = [step.function for step in t.contract().flow_steps]  # type: ignore[attr-defined]
    assert t.run(n=2, session=open_session(":memory:", workers=0)).result() == {"sum": 0.5}
    assert [step.function for step in t.contract().flow_steps] == before  # type: ignore[attr-defined]
    assert all(before)
