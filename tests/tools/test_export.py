"""`gf.export`: typed functions become a module that needs no geoflow, and does what was recorded of a run."""

from __future__ import annotations

import datetime
import decimal
import enum
import importlib
import json
import linecache
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import geoflow as gf
from geoflow.errors import DefinitionError
from geoflow.jobtypes.typed.lowered import task_id
from geoflow.support.jsonable import from_json, to_json
from geoflow.tools.export import carried
from geoflow.tools.export.layout import literal
from tests.helpers.sessions import OpenSession

HEAD = """
import math
import xml.etree.ElementTree
from dataclasses import dataclass, field
from os import path
from pathlib import Path
from typing import Annotated

import geoflow as gf
from geoflow.errors import TaskExecutionError
from pydantic import BaseModel, Field

FACTORS = {"north": 2, "south": 0.5, "nowhere": float("inf")}
OPEN = threading = None


class Params(BaseModel):
    folder: Path
    sides: Annotated[list[str], Field(min_length=1)]
    note: Annotated[str, gf.identity(False)] = ""
    most: Annotated[int, Field(ge=1), gf.identity(False)] = 100


class Tile(BaseModel):
    name: str
    side: str
    width: float = math.nan


@dataclass
class Stat:
    name: str
    weight: float
    seen: list[int] = field(default_factory=list)


t = gf.JobType("tile_stats", params=Params, description="Weights of tiles.")
"""
STAGES = '''
def weight(tile: Tile) -> float:
    """What a tile weighs."""
    if tile.side == "west":
        raise gf.errors.ResourceNotFoundError(path.join("no", tile.side))
    if tile.side == "east":
        raise TaskExecutionError(tile.side)
    return tile.width * FACTORS[tile.side]


@t.stage
def scan(p: Params) -> dict[str, list[Tile]]:
    tiles = [Tile(name=f"{side} {n}", side=side) for n, side in enumerate(p.sides)]
    for tile in tiles[1:]:
        tile.width = len(xml.etree.ElementTree.fromstring(f"<a>{tile.name}</a>").text)
    return {"tiles": tiles}


def tiles_of(found: dict[str, list[Tile]]) -> list[Tile]:
    return found["tiles"]


@t.each(
    scan,
    over=tiles_of,
    key="name",
    retries=0,
)
def stat(tile: Tile, p: Params) -> Stat:
    return Stat(tile.name, weight(tile), [p.most])


@t.reduce(stat)
def merge(stats: list[Stat], p: Params) -> dict:
    known = [stat.weight for stat in stats if not math.isnan(stat.weight)]
    return {"sum": sum(known), "folder": p.folder, "stats": stats}


@t.finalize
def summary(total: dict, context: gf.JobExecutionContext, p: Params) -> dict:
    return {"tasks": len(context.task_results), "note": p.note, **total}
'''
SIDES = ["north", "south", "north", "south", "north", "south"] * 2


class Notebook:
    """Cells that are run in one namespace, with their text where Python looks for it, as in a notebook."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", **names}

    def run(self, source: str) -> Any:
        """Run a cell; what it calls ``_``."""
        name = f"/tmp/ipykernel_{id(self)}/{len(linecache.cache)}.py"
        source = textwrap.dedent(source)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), self.names)
        return self.names.get("_")


@pytest.fixture
def notebook(tmp_path: Path, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.chdir(tmp_path)
    before = dict(linecache.cache)
    yield Notebook(session=open_session(workers=0), gf=gf)
    linecache.cache.clear()
    linecache.cache.update(before)


@pytest.fixture
def weights(notebook: Notebook) -> Notebook:
    notebook.run(HEAD)
    notebook.run(STAGES)
    return notebook


def refused(book: Notebook, target: str = "t", **options: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        gf.export(book.names[target], "jobs", **options)
    return str(caught.value)


def told(job: gf.JobHandle) -> list[tuple[Any, ...]]:
    return list(job.tasks()[["stage", "task_id", "task_type", "status", "result"]].itertuples(index=False, name=None))


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a session loads from a file is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_S6_S8_the_exported_module_has_the_same_ids_and_results_as_the_notebook(
    weights: Notebook, open_session: OpenSession, loaded: None, tmp_path: Path
) -> None:
    session = weights.names["session"]
    job = weights.names["t"].run(folder="x", sides=SIDES, note="one", session=session)
    assert job.result()["sum"] > 0, job.error
    report = gf.export(weights.names["t"], "jobs")
    assert report.proved == {"parameters": 1, "job id": 1, "task ids": 13, "results": 14, "finalize": 1}
    assert report.notes == ()

    plain = open_session(tmp_path / "plain.db")
    plain.register(str(report.module))
    again = plain.run("tile_stats", folder="x", sides=SIDES, note="one")
    assert again.id == job.id
    assert told(again) == told(job)
    assert again.result() == job.result()
    receipt = plain.run("tile_stats", folder="x", sides=SIDES, note="two").receipt
    assert receipt is not None
    assert receipt.status == "already_exists"
    assert again.parameters == job.parameters
    with pytest.raises(gf.errors.ParameterError, match="There is no parameter sids; there are folder, sides"):
        plain.submit("tile_stats", folder="x", sids=[])


@pytest.mark.parametrize(("side", "category"), [("west", "permanent"), ("east", "business"), ("up", "permanent")])
def test_S25_exceptions_of_the_exported_module_count_as_those_of_the_notebook(
    weights: Notebook, open_session: OpenSession, loaded: None, tmp_path: Path, side: str, category: str
) -> None:
    job = weights.names["t"].run(folder="x", sides=[side], session=weights.names["session"])
    plain = open_session(tmp_path / "plain.db")
    plain.register(str(gf.export(weights.names["t"], "jobs").module))
    again = plain.run("tile_stats", folder="x", sides=[side])
    columns = ["task_id", "error_type", "error_category", "retryable", "error"]
    assert again.errors()[columns].values.tolist() == job.errors()[columns].values.tolist()
    assert again.errors()["error_category"].tolist() == [category]


def test_the_module_and_its_test_pass_without_geoflow_and_under_ruff_of_any_width(
    weights: Notebook, tmp_path: Path
) -> None:
    weights.names["t"].run(folder="x", sides=SIDES, session=weights.names["session"])
    report = gf.export(weights.names["t"], "jobs")
    assert "geoflow" not in report.module.read_text().replace("It needs no geoflow.", "")
    block = "import sys, pytest; sys.modules.update(geoflow=None, cloudpickle=None); sys.exit(pytest.main())"
    command = [sys.executable, "-P", "-c", block, "-q", "jobs"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    ruff = shutil.which("ruff", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for command in (["check"], ["format", "--check"], ["format", "--check", "--line-length", "120"]):
        done = subprocess.run([ruff, *command, "--isolated", "jobs"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_files_that_are_there_are_refused_unless_they_may_be_overwritten(weights: Notebook) -> None:
    report = gf.export(weights.names["t"], "jobs", prove=False)
    report.module.write_text("mine")
    assert "jobs/tile_stats.py and jobs/test_tile_stats.py would be replaced: say overwrite=True" in refused(weights)
    assert report.module.read_text() == "mine"
    gf.export(weights.names["t"], "jobs", overwrite=True)
    assert "class TileStats:" in report.module.read_text()
    assert sorted(os.listdir("jobs")) == ["test_tile_stats.py", "tile_stats.py"]


def test_a_name_of_its_own_is_not_taken_for_what_the_notebook_calls_so(notebook: Notebook) -> None:
    notebook.run("""
        s = size = gf
        t = gf.JobType("own_names")
        @t.stage
        def scan() -> list[int]:
            size = 2
            return [size]
        @t.reduce(scan)
        def merge(s: list[int]) -> dict:
            return {"n": sum(s)}
    """)
    job = notebook.names["t"].run(session=notebook.names["session"])
    assert gf.export(notebook.names["t"], "jobs", job=job).proved["results"] == 2


def test_S49_what_is_marked_as_a_file_is_a_text_in_production(notebook: Notebook) -> None:
    notebook.run("""
        from geoflow import OutputFile as Made
        from pydantic import BaseModel
        class Area(BaseModel):
            folder: gf.InputFile = "."
        class Copy(BaseModel):
            path: Made = ""
        t = gf.JobType("marked_files", params=Area)
        @t.stage
        def scan(area: Area) -> list[str]:
            return [area.folder]
        @t.each(scan)
        def copied(path: gf.InputFile) -> Copy:
            return Copy()
    """)
    job = notebook.names["t"].run(session=notebook.names["session"])
    assert gf.export(notebook.names["t"], "jobs", job=job).proved["results"] == 2
    text = Path("jobs", "marked_files.py").read_text()
    assert "Made" not in text
    assert "InputFile" not in text


def test_without_a_run_it_is_said_that_nothing_was_proved(weights: Notebook) -> None:
    report = gf.export(weights.names["t"], "jobs", session=weights.names["session"])
    assert report.proved == {}
    assert repr(report) == (
        "tile_stats is exported to jobs/tile_stats.py, its test to jobs/test_tile_stats.py.\n"
        "Not proved on a run.\n"
        "Note: it was not proved, as there is no completed run: run it, then export it with job=."
    )


def test_what_differs_from_the_run_is_told_and_the_module_left_as_rejected(weights: Notebook) -> None:
    job = weights.names["t"].run(folder="x", sides=SIDES, session=weights.names["session"])
    weights.run("FACTORS['south'] = 100\nFACTORS['north'] = 'x'")
    text = refused(weights, job=job)
    assert text.startswith(f"tile_stats was exported, but does not do what job {job.id[:8]} did:\n")
    assert "stage 2: the result of" in text
    assert "['result']['weight']: was 3.5, is 700.0" in text
    assert "raises TypeError: can't multiply sequence by non-int" in text
    assert 'on_existing="rerun"' in text
    assert os.listdir("jobs") == ["tile_stats.py.rejected"]


def test_a_task_id_that_differs_is_told(weights: Notebook) -> None:
    job = weights.names["t"].run(folder="x", sides=SIDES[:2], session=weights.names["session"])
    weights.run(STAGES.replace('key="name"', 'key="width"'))
    assert "stage 2: its tasks [0]['task_id']: was " in refused(weights, job=job)


def test_a_job_of_another_type_or_that_failed_proves_nothing(weights: Notebook) -> None:
    session = weights.names["session"]
    job = weights.names["t"].run(folder="x", sides=["west"], session=session)
    assert f"Job {job.id[:8]} (tile_stats, failed) is no completed run of tile_stats." in refused(weights, job=job)
    assert "is no completed run of tile_stats" in refused(weights, job=session.run("hello_world", n=1))


def test_values_that_look_like_secrets_are_not_written_into_the_test(weights: Notebook) -> None:
    weights.run(HEAD.replace("note:", "api_token: str = ''\n    note:") + STAGES + "\nsession.register(t)")
    weights.names["t"].run(folder="x", sides=SIDES, api_token="s3cret", session=weights.names["session"])
    report = gf.export(weights.names["t"], "jobs")
    assert report.notes == ("the test has no recorded values, since some look like secrets.",)
    assert "s3cret" not in report.test.read_text() + report.module.read_text()


HOSTILE = [
    (
        "def stat(tile: Tile, context: gf.TaskContext) -> Stat: ...",
        "stat takes a context (context), which production does not give to handlers: leave it out. To log, use "
        "logging.getLogger(__name__).",
    ),
    ("def stat(tile: Tile) -> Stat: return area(tile)", "stat uses 'area', a lambda: write it as a def."),
    ("def stat(tile: Tile) -> Stat: return made(tile)", "stat uses 'made', whose source cannot be found"),
    ("def stat(tile: Tile) -> Stat: return half(tile)", "stat uses 'half', a partial, which cannot be written into a"),
    (
        "def stat(tile: Tile) -> Stat: return holding(tile)",
        "hold uses 'held', a Holder, which cannot be written into a file: make it inside the function, from plain",
    ),
    ("def stat(tile: Tile) -> Stat: return table[0]", "stat uses 'table', which takes 15,169 characters to write out"),
    ("def stat(tile: Tile) -> Stat: return gone(tile)", "stat uses 'gone', which is not defined: run its cell, or"),
    ("def stat(tile: Tile) -> Stat: return counted()", "counted assigns the global 'COUNT', which other processes do"),
    (
        "def stat(tile: Tile) -> Stat: return tallied()",
        "tallied assigns 'tally' of the function around it, which other",
    ),
    ("def stat(tile: Tile) -> Stat: return deep()", "deep assigns 'tally' of the function around it, which other"),
    (
        "def stat(tile: Tile) -> Stat: return Counter()",
        "Counter assigns 'tally' of the function around it, which other processes do not see: return it.",
    ),
    ("def stat(tile: Tile) -> Stat: return gf.run('x')", "stat uses gf.run, which production does not have"),
    ("def stat(tile: Tile) -> Stat: return t.name", "stat uses t, a gf.JobType, which production does not"),
    (
        "def stat(tile: Tile) -> Stat:\n    import geoflow.support.text",
        "stat imports geoflow, which production does not have",
    ),
    ("def stat(tile: Tile) -> Stat: return scan_handler", "'scan_handler' is what the exported module calls something"),
    ("def stat(tile: Tile) -> Stat: return _plain(tile)", "'_plain' means two things in what is exported"),
]
HOSTILE_CELL = """
import functools, threading
area = lambda tile: 1
table = list(range(10_000, 12_500)) and ["x" * 10] * 1072
COUNT = 0
exec("def made(tile): ...")
def halved(tile, by): ...
half = functools.partial(halved, by=2)
class Holder:
    held = 0
def make():
    held = Holder()
    def hold(tile):
        return held
    return hold
holding = hold = make()
holding.__qualname__ = "holding"
def holding(tile):
    return hold(tile)
def counted():
    global COUNT
    COUNT += 1
def around():
    tally = 0
    def tallied():
        nonlocal tally
        tally += 1
    def deep():
        own = 0
        def deeper():
            nonlocal own, tally
            own += 1
            tally += 1
        return deeper
    class Counter:
        def count(self):
            nonlocal tally
            tally += 1
    return tallied, deep, Counter
tallied, deep, Counter = around()
def scan_handler(): ...
def _plain(value): ...
"""


@pytest.mark.parametrize(("source", "message"), HOSTILE)
def test_what_cannot_be_exported_is_refused_by_name_and_nothing_is_written(
    weights: Notebook, source: str, message: str
) -> None:
    weights.run(HOSTILE_CELL)
    weights.run(f'@t.each(scan, over=tiles_of, key="name")\n{source}')
    text = refused(weights, prove=False)
    assert message in text
    assert not os.path.exists("jobs")


def test_all_problems_are_told_at_once(weights: Notebook) -> None:
    weights.run(HOSTILE_CELL)
    weights.run("""
        @t.each(scan, over=tiles_of, key=lambda tile: tile.name)
        def stat(tile: Tile, context: gf.TaskContext) -> Stat:
            return [area(tile), table, half(gf.jobs())]
    """)
    lines = refused(weights).splitlines()
    assert lines[0] == "tile_stats cannot be exported as it is:"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "  - stat takes a context (context)",
        "  - stat uses gf.jobs",
        "  - stat uses 'area'",
        "  - stat uses 'half'",
        "  - stat uses 'table'",
        "  - key= of stat uses '<lambda>'",
    ]


def test_a_contract_class_needs_no_export() -> None:
    from tests.helpers import jobs

    with pytest.raises(DefinitionError, match=r"is no gf\.JobType: a contract class goes to production as it is"):
        gf.export(jobs.Acts, "jobs")  # type: ignore[arg-type]


# Other ways to write a job type

IN_A_FILE = '''
"""A job type in a file of its own."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from enum import Enum

import geoflow as gf
from {helpers} import doubled

NAME = re.compile(r"[a-z]+")
logger = logging.getLogger("of.mine")


class Kind(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Params:
    names: list[str]
    most: int = 3


in_a_file = gf.JobType("in_a_file", params=Params)


@in_a_file.stage
def scan(p):
    return p.names


@functools.cache
def kind_of(name: str) -> Kind:
    logger.info("kind of %s", name)
    return Kind.LARGE if NAME.fullmatch(name) and len(name) > 3 else Kind.SMALL


def key_of(name: str) -> str:
    return name.upper()


@in_a_file.each(scan, key=key_of)
def work(name: str) -> list[Kind]:
    return doubled([kind_of(name)])


@in_a_file.each(work)
def look(kind: Kind, p: Params) -> dict:
    return {{"kind": kind, "most": p.most}}
'''


@pytest.fixture
def module_file(tmp_path: Path, loaded: None) -> Path:
    helpers = f"helpers_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{helpers}.py").write_text("def doubled(items):\n    return items * 2\n")
    path = tmp_path / f"mine_{tmp_path.name}.py".replace("-", "_")
    path.write_text(IN_A_FILE.format(helpers=helpers))
    return path


def test_a_job_type_of_a_file_is_exported_with_the_module_of_the_users_as_an_import(
    module_file: Path, open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session()
    session.register(str(module_file))
    job = session.run("in_a_file", names=["abcd", "b", "c d"])
    assert job.result()["count"] == 6, job.error
    maker = sys.modules[module_file.stem].in_a_file
    report = gf.export(maker, module_file.parent / "jobs", session=session)
    assert report.proved == {"parameters": 1, "job id": 1, "task ids": 10, "results": 10, "finalize": 1}
    assert [note.partition(" ")[0] for note in report.notes] == ["these", "look"]
    assert "say key=" in report.notes[1]
    plain = open_session(tmp_path / "plain.db")
    plain.register(str(report.module))
    again = plain.run("in_a_file", names=["abcd", "b", "c d"])
    assert (again.id, told(again), again.result()) == (job.id, told(job), job.result())
    assert ("from __future__ import annotations" in report.module.read_text()) is True


def test_a_module_of_the_users_that_imports_geoflow_is_refused(module_file: Path, open_session: OpenSession) -> None:
    helpers = next(module_file.parent.glob("helpers_*.py"))
    helpers.write_text("import geoflow\n" + helpers.read_text())
    open_session().register(str(module_file))
    with pytest.raises(DefinitionError, match="which would be imported, but has 'geoflow' of geoflow"):
        gf.export(sys.modules[module_file.stem].in_a_file, module_file.parent / "jobs")


def test_a_job_type_that_a_function_makes_brings_the_plain_variables_of_it(
    open_session: OpenSession, tmp_path: Path
) -> None:
    def make(factor: int) -> gf.JobType:
        made = gf.JobType("made_by_one")

        @made.stage
        def scan(p) -> list[int]:
            return [n * factor for n in range(p["n"])]

        @made.reduce(scan)
        def total(numbers: list[int]) -> dict[str, int]:
            return {"sum": sum(numbers)}

        return made

    made = make(10)
    job = made.run(n=4, session=open_session(workers=0))
    report = gf.export(made, tmp_path / "jobs", job=job)
    assert report.proved == {"parameters": 1, "job id": 1, "task ids": 1, "results": 2, "finalize": 1}
    assert "\nfactor = 10\n" in report.module.read_text()


def test_a_nonlocal_of_a_function_that_is_exported_itself_stays(open_session: OpenSession, tmp_path: Path) -> None:
    made = gf.JobType("counts_inside")

    @made.stage
    def scan(p) -> list[int]:
        count = 0

        def more() -> int:
            nonlocal count
            count += 1
            return count

        return [more() for _ in range(p["n"])]

    job = made.run(n=4, session=open_session(workers=0))
    report = gf.export(made, tmp_path / "jobs", job=job)
    assert report.proved["results"] == 1
    assert "nonlocal count" in report.module.read_text()


def test_classes_whose_cells_ran_again_are_exported_as_they_are_now(weights: Notebook) -> None:
    weights.run('class Tile(BaseModel):\n    name: str\n    side: str\n    width: float = 7.0\n    """now"""')
    linecache.cache["/tmp/later"] = (1, None, ["class Tile(BaseModel):\n", "    name: str\n"], "/tmp/later")
    weights.run(STAGES)
    weights.names["t"].run(folder="x", sides=SIDES, session=weights.names["session"])
    report = gf.export(weights.names["t"], "jobs")
    assert '    width: float = 7.0\n    """now"""' in report.module.read_text()


def test_names_of_geoflow_are_replaced_in_quoted_annotations_too(notebook: Notebook) -> None:
    notebook.run("""
        from typing import Annotated
        from pydantic import BaseModel

        COLOURS = {"red", "green", "blue"}

        class Asked(BaseModel):
            n: int
            note: Annotated[str, gf.identity(False)] = ""

        q = gf.JobType("quoted", params=Asked)

        @q.stage
        def scan(p: "Asked") -> "list[str]":
            return sorted(COLOURS)[: p.n]

        @q.finalize
        def end(found: "list[str]", context: "gf.JobExecutionContext") -> dict:
            return {"found": found, "tasks": len(context.task_results)}
    """)
    job = notebook.names["q"].run(n=2, note="x", session=notebook.names["session"])
    text = gf.export(notebook.names["q"], "jobs", job=job).module.read_text()
    assert 'note: Annotated[str, "identity(False)"] = ""' in text
    assert "context: 'Any'" in text
    assert 'COLOURS = {"blue", "green", "red"}' in text


def test_S52_files_of_the_exported_module_are_there_once_its_handler_has_succeeded_and_nothing_else_is(
    notebook: Notebook, loaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temp").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    notebook.run("""
        import os
        from geoflow import output

        t = gf.JobType("files")

        @t.stage
        def write(p: dict) -> dict:
            (gf.scratch() / "draft").write_text("x")
            with output(p["path"]) as path:
                path.write_text("whole")
                path.with_name(path.name + ".ovr").write_text("overview")
                if p["end"] == "in the block":
                    raise OSError("here")
            if p["end"] == "later":
                return {"success": False, "error": "later"}
            return {"was": os.path.exists(p["path"]), "drafts": len(os.listdir(gf.scratch()))}
    """)
    t, session, path = notebook.names["t"], notebook.names["session"], str(tmp_path / "out" / "a.tif")
    job = t.run(path=path, end="", session=session)
    Path(path).unlink()
    module = gf.export(t, "jobs", job=job).module  # which writes the file once more, where it is proved
    assert sorted(os.listdir("out")) == ["a.tif", "a.tif.ovr"]
    text = module.read_text("utf-8")
    assert "geoflow" not in text.replace("It needs no geoflow", "")
    monkeypatch.syspath_prepend(str(module.parent))
    handler = importlib.import_module("files").write_handler
    ask = {"path": path, "end": ""}
    Path(path).write_text("old")
    (tmp_path / "out" / "a.tif.aux.xml").write_text("of the old")
    with pytest.raises(OSError, match="here"):
        handler({"params": {**ask, "end": "in the block"}})
    assert handler({"params": {**ask, "end": "later"}})["success"] is False
    assert Path(path).read_text() == "old"
    Path(path).unlink()
    assert handler({"params": ask}) == {"success": True, "result": {"was": False, "drafts": 1}}
    assert {path.name: path.read_text() for path in Path("out").iterdir()} == {
        "a.tif": "whole",
        "a.tif.ovr": "overview",
    }
    for wrong in ("out", "out/", "missing/a.tif"):
        with pytest.raises(ValueError, match="There can be no file"):
            handler({"params": {**ask, "path": wrong}})
    assert os.listdir("temp") == [Path(session.runtime.executor.where()).name]
    assert sorted(os.listdir("out")) == ["a.tif", "a.tif.ovr"]


@pytest.mark.filterwarnings("ignore:metadata on a dtype")
def test_S59_what_an_exported_module_saves_comes_back_the_same_or_is_refused(
    notebook: Notebook, loaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook.run("""
        import numpy as np
        from geoflow import load

        t = gf.JobType("slopes")

        @t.stage
        def heights(p: dict) -> list[dict]:
            return [gf.save(np.arange(4.0) * n) for n in range(p["n"])] + [gf.save(b"none")]

        @t.each(heights, key="sha256")
        def slope(kept: dict) -> dict:
            grid = load(kept)
            return gf.save(b"flat" if isinstance(grid, bytes) else np.gradient(grid))

        @t.reduce(slope)
        def steepest(kept: list[dict]) -> float:
            return max(float(gf.load(one).max()) for one in kept if one["gf_saved"] == "npy")
    """)
    t, session = notebook.names["t"], notebook.names["session"]
    job = t.run(n=3, session=session)
    assert job.result() == {"result": 2.0}, job.error
    made = gf.export(t, "jobs", job=job)
    assert made.proved == {"parameters": 1, "job id": 1, "task ids": 5, "results": 6, "finalize": 1}
    assert any("SAVED_FOLDER is to name a folder" in note for note in made.notes)
    assert any("the test leaves out calls of" in note and "which save or load files" in note for note in made.notes)
    text = made.module.read_text("utf-8")
    assert "geoflow" not in text.replace("It needs no geoflow", "")

    monkeypatch.syspath_prepend(str(made.module.parent))
    module = importlib.import_module("slopes")
    with pytest.raises(ValueError, match="have SAVED_FOLDER name a folder that all workers share"):
        module._save(b"x")
    (folder := tmp_path / "saved").mkdir()
    monkeypatch.setenv("SAVED_FOLDER", str(folder))
    array = np.array([1.5, np.nan, -np.inf], ">f4")
    reference = json.loads(json.dumps(module._save(array)))
    assert reference == {**gf.save(array), "path": reference["path"]}
    assert module._load(reference).tobytes() == array.tobytes()
    assert module._save(array) == reference
    for value in (array.astype(object), np.float32(1), "text", np.zeros(2, np.dtype("f8", metadata={"unit": "m"}))):
        with pytest.raises((TypeError, ValueError), match=r"is not saved here|Object arrays|not come back the same"):
            module._save(value)
    assert [path.name for path in folder.iterdir()] == [Path(reference["path"]).name], "nothing is left of the refused"
    Path(reference["path"]).write_bytes(b"another")
    with pytest.raises(ValueError, match="is gone, or is not what was saved"):
        module._load(reference)


def test_annotations_that_are_no_code_and_comments_at_the_end_stay_as_they_are(notebook: Notebook) -> None:
    notebook.run("""
        q = gf.JobType("noted")

        def wide(width: "in metres") -> float:
            return width
            # as it was measured

        @q.stage
        def scan(p) -> float:
            return wide(p["width"])
    """)
    job = notebook.names["q"].run(width=2.5, session=notebook.names["session"])
    text = gf.export(notebook.names["q"], "jobs", job=job).module.read_text()
    assert 'def wide(width: "in metres") -> float:\n    return width\n    # as it was measured\n' in text


def test_the_verb_exports_a_file_and_proves_it_on_the_latest_run(module_file: Path) -> None:
    def geoflow(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "geoflow", *words]
        environment = {**os.environ, "PYTHONPATH": str(Path(gf.__file__).parents[1])}
        return subprocess.run(
            command, cwd=module_file.parent, env=environment, capture_output=True, text=True, check=False
        )

    geoflow("run", module_file.name, 'names=["a", "b"]')
    done = geoflow("export", module_file.name, "jobs", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["proved"] == {
        **{"parameters": 1, "job id": 1, "task ids": 7},
        **{"results": 7, "finalize": 1},
    }
    done = geoflow("export", module_file.name, "jobs")
    assert done.returncode == 2
    assert "would be replaced" in done.stderr


CELLS = """
import time
from collections import namedtuple
from datetime import date, datetime
from typing import Callable, Iterable, Literal, TypeAlias
from pydantic import ConfigDict, field_validator

Way: TypeAlias = Literal["up", "down"]
Pair = namedtuple("Pair", "left right")


def highest(cells: Iterable[int], how: Callable | None = None, dt=0.1, fields=(time, date, datetime)):
    return max(cells)


def lowest(cells):
    return min(cells)


WAYS = {"up": highest, "down": lowest}


class Base(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=True)
    name: str = Field(alias="Name")


class Asked(Base):
    n: int = 3
    way: "Way" = "up"

    @field_validator("n")
    @classmethod
    def odd(cls, n: int) -> int:
        return n | 1


FIRST = Asked(Name="first")
u = gf.JobType("other_ways", params=Asked)


@u.stage
def scan(p: "Asked") -> "list[list[int]]":
    return [list(range(n + 1)) for n in range(p.n)]


@u.each(scan)
def pick(cells: list[int], p: Asked) -> float:
    logging.getLogger(__name__).info("%s", FIRST.name)
    if p.way == "down" and len(cells) > 2:
        return {"success": True, "result": -1.0, "more": Pair(1, 2)}
    return WAYS[p.way](cells) + 0.5


@u.each(pick)
def shown(found: float) -> str:
    return f"{found:.2f}"
"""


@pytest.mark.parametrize("way", ["up", "down"])
def test_aliases_extra_fields_tables_of_functions_and_named_tuples_are_exported(
    notebook: Notebook, open_session: OpenSession, loaded: None, tmp_path: Path, way: str
) -> None:
    notebook.run("import logging\n" + HEAD)
    notebook.run(CELLS)
    session = notebook.names["session"]
    job = notebook.names["u"].run(Name="x", n=10, way=way, more=1, session=session)
    report = gf.export(notebook.names["u"], "jobs", job=job)
    assert report.proved == {"parameters": 1, "job id": 1, "task ids": 23, "results": 23, "finalize": 1}
    plain = open_session(tmp_path / "plain.db", workers=0)
    plain.register(str(report.module))
    again = plain.run("other_ways", Name="x", n=10, way=way, more=1)
    assert (again.id, told(again), again.result()) == (job.id, told(job), job.result())


EXPORTED = """
session = gf.open("work.db", workers=1, display="none")
job = t.run(folder="x", sides=["north", "south"], session=session)
print(gf.export(t, "jobs"))
session.close()
"""


@pytest.mark.slow
def test_a_job_type_of_cells_is_exported_and_proved_in_a_real_kernel(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    older = f"{HEAD}\nclass Tile(BaseModel):\n    name: str"
    cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in (older, HEAD, STAGES, EXPORTED)]
    book = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(Path(gf.__file__).parents[1])})
    printed = book.cells[-1].outputs[0]["text"].splitlines()
    assert printed[0] == "tile_stats is exported to jobs/tile_stats.py, its test to jobs/test_tile_stats.py."
    assert printed[1].endswith(": parameters, job id, 3 task ids, 4 results, finalize.")
    assert "width: float = math.nan" in (tmp_path / "jobs" / "tile_stats.py").read_text()


# What modules carry does the same as the code that it stands for


class Point:
    __geo_interface__ = {"type": "Point", "coordinates": (1, 2)}


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    when: datetime.date
    at: Path


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "ü"], 1: (math.nan, -math.inf), datetime.date(2020, 1, 2): {}},
        [{3, 1, 2}, frozenset({"b", "a"}), {1, "a"}],
        [Colour.RED, uuid.UUID(int=1), pathlib.PurePosixPath("a/b"), decimal.Decimal("1.50"), decimal.Decimal("NaN")],
        [datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), datetime.time(1), datetime.timedelta(hours=1), pd.NaT],
        [Model(when=datetime.date(2020, 1, 2), at=Path("x")), Point(), pd.NA, pd.Timestamp("2020-01-02")],
        [np.float32(0.5), np.int16(3), np.float64("nan"), np.bool_(True), np.str_("a"), np.array(3), np.longdouble(1)],
        [np.datetime64("2020-01-02"), np.datetime64("NaT"), np.timedelta64(90, "m"), np.ma.masked],
    ],
)
def test_S21_values_become_the_json_that_geoflow_makes_of_them(value: Any) -> None:
    assert carried._plain(value) == from_json(to_json(value))


@pytest.mark.parametrize("value", [b"bytes", np.zeros(3), object(), pd.DataFrame()])
def test_S21_what_has_no_json_form_is_refused_as_permanent(value: Any) -> None:
    with pytest.raises(TypeError, match="has no JSON form: write it to a file and return the path"):
        carried._plain({"x": value})


@pytest.mark.parametrize("key", [None, "a", "", "a b", "ü" * 80, "x" * 200, "a/b", "\udc80"])
def test_S6_task_ids_are_those_of_geoflow(key: str | None) -> None:
    assert carried._task_id("f" * 64, "stat", key) == task_id("f" * 64, "stat", key)
    assert carried._task_id("f" * 64, "s" * 120, key) == task_id("f" * 64, "s" * 120, key)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1.5, math.inf, 'a "quoted" text', "it's", (), (1,), set(), {3, 1}, frozenset(), frozenset({"a"}), b"x"),
        {"a": [list(range(40)), {"b": {"c" * 30: ["d" * 30] * 3}}], ("t", 1): {1: set(range(30))}},
    ],
)
def test_a_literal_is_the_value_again(value: Any) -> None:
    assert eval(literal(value)) == value


def test_geoflow_gives_the_function_also_when_its_package_was_imported_first() -> None:
    importlib.import_module("geoflow.tools.export.writing")
    assert callable(gf.export)


def test_S54_the_exported_module_tells_nobody_of_its_progress(
    notebook: Notebook, loaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook.run("""
        from geoflow import track

        t = gf.JobType("telling")

        @t.stage
        def count(p: dict) -> dict:
            gf.progress(0, text="now")
            return {"seen": list(track(p["items"], "items"))}
    """)
    t, session = notebook.names["t"], notebook.names["session"]
    module = gf.export(t, "jobs", job=t.run(items=[1, 2], session=session)).module
    text = module.read_text("utf-8")
    assert "geoflow" not in text.replace("It needs no geoflow", "")
    monkeypatch.syspath_prepend(str(module.parent))
    assert importlib.import_module("telling").count_handler({"params": {"items": [3]}})["result"] == {"seen": [3]}
