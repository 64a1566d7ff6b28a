"""A task as a file to be sent: all there is of it, nothing secret, and nothing that acts by being looked at."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.commands.cli import main
from geoflow.errors import BundleError, ParameterError
from geoflow.jobtypes.contract import job_id_for
from geoflow.tools.bundle.code import hide
from geoflow.tools.bundle.names import problem_of
from geoflow.tools.bundle.opened import Bundle
from geoflow.tools.bundle.told import hidden_in, put
from tests.helpers.drawn import checked, text_of
from tests.helpers.sessions import ROOT, OpenSession
from tests.helpers.stored import NASTY, planned

# A handler that needs no geoflow, with a module of its own beside it, in a package that leaves a trace when imported.
PACKAGE = {
    "sent/__init__.py": "import os\n\nopen(os.environ['TRACE'], 'a').write('imported ')\n",
    "sent/areas.py": "FACTOR = 2\n\n\ndef area(text, by):\n    return FACTOR * len(text) / by\n",
    "sent/tiles.py": """\
from geoflow.jobtypes.contract import job_id_for

from .areas import area

TOKEN = "hunter2"


def measure(params, context):
    print("measuring", params["path"].rpartition("/")[2])  # password=hunter2
    with open(params["path"]) as file:
        return {"success": True, "result": {"area": area(file.read(), params["by"]), "task": context.task_id}}


class Tiles:
    job_type, description = "sent_tiles", "tiles"
    stages = [{"number": 1, "name": "measure", "task_type": "measure", "max_retries": 0}]

    @staticmethod
    def validate_job_parameters(params):
        return params

    @staticmethod
    def generate_job_id(params):
        return job_id_for("sent_tiles", params)

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        tasks = enumerate(job_params["tasks"])
        return [{"task_id": f"t{n}", "task_type": "measure", "parameters": each} for n, each in tasks]

    @staticmethod
    def finalize_job(context=None):
        return {}


ALL_JOBS, ALL_HANDLERS = {"sent_tiles": Tiles}, {"measure": measure}
""",
}


@pytest.fixture
def session(open_session: OpenSession) -> gf.Session:
    return open_session(":memory:", workers=0, max_retries=0)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package of `sent` leaves a word when it is imported."""
    path = tmp_path / "trace"
    monkeypatch.setenv("TRACE", str(path))
    return path


@pytest.fixture
def sent(session: gf.Session, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gf.JobHandle]:
    """A job of the package's, one of whose tasks has failed; the package is gone, and so are the files."""
    for name, text in PACKAGE.items():
        (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "code" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "data").mkdir()
    for name in ("a.shp", "a.dbf", "b.txt"):
        (tmp_path / "data" / name).write_text(name)
    session.register("sent.tiles")
    paths = [{"path": str(tmp_path / "data" / name)} for name in ("a.shp", "b.txt")]
    tasks = [{**paths[0], "by": 0, "api_key": "hunter2"}, {**paths[1], "by": 5}]
    job = session.run("sent_tiles", tasks=tasks)
    yield job
    for name in [name for name in sys.modules if name.partition(".")[0] == "sent"]:
        del sys.modules[name]


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# What is in it


def test_S69_a_bundle_has_all_there_is_of_a_task_and_its_page_shows_it_and_does_nothing(
    sent: gf.JobHandle, tmp_path: Path
) -> None:
    bundle = sent.task("t0").bundle(tmp_path / "bad.zip", inputs="path")
    assert bundle.error == "ZeroDivisionError: division by zero"
    assert "line 5, in area" in str(bundle.traceback)
    assert bundle.output == "measuring a.shp\n"
    assert bundle.parameters == {"path": str(tmp_path / "data/a.shp"), "by": 0, "api_key": "***"}
    assert [*bundle.code] == ["sent/tiles.py", "sent/__init__.py", "sent/areas.py"]
    assert bundle.code["sent/areas.py"] == PACKAGE["sent/areas.py"]
    assert bundle.told.ran_with["geoflow"] == gf.__version__
    assert {line.level for line in bundle.told.lines} == {"WARNING"}
    inside = members(tmp_path / "bad.zip")
    assert {"inputs/0/a.shp", "inputs/0/a.dbf", "run.py", "README.txt"} < {*inside}
    assert (tmp_path / "bad.zip").stat().st_mode & 0o777 == 0o600
    head, _, body = inside["index.html"].decode().partition("<body>")
    assert "default-src 'none'" in head
    shown = text_of(str(bundle._repr_html_()))
    for each in (" ".join(" ".join(checked(body.partition("</body>")[0]).text).split()), shown):
        for told in (
            "✗ failed t0",
            "ZeroDivisionError: division by zero",
            "measuring a.shp",
            "def area(text, by)",
            "10 B",
        ):
            assert told in each
    assert "There Here" in shown  # versions beside each other
    lines = [*bundle.lines(80)]
    assert max(map(len, lines)) <= 80 or [line for line in lines if len(line) > 80 and "/" in line]
    assert any(line.startswith("failed: measure of sent_tiles") for line in lines)


def test_S44_nothing_that_looks_secret_is_in_a_bundle(sent: gf.JobHandle, tmp_path: Path) -> None:
    bundle = sent.task("t0").bundle(tmp_path / "bad.zip")
    assert not [name for name, read in members(tmp_path / "bad.zip").items() if b"hunter2" in read]
    assert bundle.told.hidden == ["api_key"]
    assert bundle.told.code.hidden == ["TOKEN in line 5 of sent/tiles.py"]
    assert 'print("measuring"' in bundle.code["sent/tiles.py"]


def test_S45_no_text_of_a_task_is_more_than_text_in_its_bundle(session: gf.Session, tmp_path: Path) -> None:
    job = session.run("acts", tasks=[{"do": "fail", "value": {"error": nasty, "nasty": nasty}} for nasty in NASTY])
    for number in range(len(NASTY)):
        bundle = job.task(f"s1-t{number}").bundle(tmp_path / f"{number}.zip")
        page = members(tmp_path / f"{number}.zip")["index.html"].decode()
        checked(page.partition("<body>")[2].partition("</body>")[0])
        assert "\x1b" not in repr(bundle)


def test_S69_a_task_that_is_not_registered_any_more_is_sent_to_be_read(
    session: gf.Session, tmp_path: Path, open_session: OpenSession
) -> None:
    @functools.partial
    def odd(params: dict[str, Any]) -> dict[str, Any]:
        return 1 / 0  # type: ignore[return-value]

    session.register(contract("odd"), {"odd": odd})
    bundle = session.run("odd").task().bundle(tmp_path / "odd.zip")
    assert "It cannot be run elsewhere: its code cannot be put together as text." in " ".join(bundle.lines(9_000))
    assert "registered as a partial" in str(bundle.told.code.why)
    assert "return 1 / 0" in str(bundle.source)  # as it was kept when it ran
    with pytest.raises(BundleError, match=r"cannot be run elsewhere: .* registered as a partial"):
        bundle.run()


def contract(name: str) -> type:
    """A job type of one task, which says what its parameters say."""

    class Of:
        job_type, description = name, "one task"
        stages = [{"number": 1, "name": name, "task_type": name, "max_retries": 0}]

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return params

        @staticmethod
        def generate_job_id(params: dict[str, Any]) -> str:
            return job_id_for(name, params)

        @staticmethod
        def create_tasks_for_stage(stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> list[Any]:
            return [{"task_id": "t0", "task_type": name, "parameters": job_params}]

        @staticmethod
        def finalize_job(context: Any = None) -> dict[str, Any]:
            return {}

    return Of


# Run, where somebody says so


def test_S69_opening_runs_nothing_and_running_runs_what_was_sent_with_the_files_that_were_sent(
    sent: gf.JobHandle, tmp_path: Path, trace: Path
) -> None:
    sent.task("t1").bundle(tmp_path / "good.zip", inputs="*")
    sent.task("t0").bundle(tmp_path / "bad.zip", inputs="*")
    for name in [name for name in sys.modules if name.partition(".")[0] == "sent"]:
        del sys.modules[name]
    for path in [*(tmp_path / "data").iterdir(), *(tmp_path / "code/sent").glob("*.py")]:
        path.unlink()
    trace.write_text("")
    bundle, good = gf.unbundle(tmp_path / "bad.zip"), gf.unbundle(str(tmp_path / "good.zip"))
    assert (str(bundle), bundle._repr_html_(), bundle.code, bundle.document()) is not None
    assert (trace.read_text(), "sent" in sys.modules) == ("", False)
    with pytest.raises(ParameterError, match=r"What api_key had was not sent.* Give a value of yours in parameters="):
        bundle.run()
    with pytest.raises(ParameterError, match=r"no parameter 'nope'. It has path, by, api_key"):
        bundle.run({"nope": 1})
    ran = bundle.run({"api_key": "mine"})
    assert (ran.error_type, ran.error, ran.same, ran.exit_status) == ("ZeroDivisionError", "division by zero", True, 1)
    assert (ran.output, "sent" in sys.modules, trace.read_text()) == ("measuring a.shp\n", False, "imported ")
    assert 'File "sent/areas.py", line 5, in area' in str(ran.traceback)
    mended = bundle.run({"api_key": "mine", "by": 5})
    assert mended.returned == {"success": True, "result": {"area": 2.0, "task": "t0"}}
    assert (mended.same, mended.exit_status) == (False, 0)
    assert "it succeeded, and not as then: it failed with ZeroDivisionError: division by zero." in " ".join(
        str(mended).split()
    )
    again = good.run()
    assert (again.same, again.exit_status) == (True, 0)
    assert "as it did then" in text_of(str(again._repr_html_()))


def test_S69_an_unpacked_bundle_runs_where_geoflow_is_not_installed(
    sent: gf.JobHandle, tmp_path: Path, trace: Path
) -> None:
    bundle = sent.task("t1").bundle(tmp_path / "good.zip", inputs="path")
    folder = bundle.unpack(tmp_path / "there")
    text = folder / "code/sent/tiles.py"
    text.write_text(text.read_text().replace("from geoflow.jobtypes.contract import job_id_for\n", ""))
    (tmp_path / "data/b.txt").unlink()
    # Without what is installed, and without what the tests have on their path.
    done = subprocess.run([sys.executable, "-ISB", "run.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"area": 2.0' in done.stdout
    with pytest.raises(FileExistsError, match="is there already: name a folder that is not"):
        bundle.unpack(folder)
    folder = sent.task("t0").bundle(tmp_path / "bad.zip", inputs="path").unpack(tmp_path / "secret")

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-ISB", "run.py"], cwd=folder, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    code, said = run()
    assert (code, "the parameters api_key. Write values of yours into task.json." in said) == (2, True)
    (folder / "task.json").write_text((folder / "task.json").read_text().replace('"***"', '"mine"'))
    code, said = run()
    assert (code, "No module named 'geoflow'" in said) == (1, True)  # which this job type imports


def test_S69_what_a_notebook_defines_goes_along_as_one_module(session: gf.Session, tmp_path: Path) -> None:
    by = 0

    def share(value: float) -> float:
        return value / by

    def halve(params: dict[str, Any]) -> dict[str, Any]:
        gf.progress(1, 1)
        return {"success": True, "result": {"half": share(params["value"])}}

    session.register(contract("halve"), {"halve": halve})
    bundle = session.run("halve", value=3).task().bundle(tmp_path / "bad.zip")
    text = bundle.code["handlers_of_notebook.py"]
    assert re.search(r"by = 0\n.*def share\(.*def halve\(", text, re.DOTALL)
    ran = bundle.run()
    assert (ran.error_type, ran.same) == ("ZeroDivisionError", True)


TYPED = """\
import math
import sys
from dataclasses import dataclass

import geoflow as gf


@dataclass
class Tile:
    side: float


def root(tile):
    return math.sqrt(tile.side)


tiles = gf.JobType("typed_tiles")


@tiles.stage
def scan(p: dict) -> list[Tile]:
    return [Tile(4.0), Tile(-4.0)]


@tiles.each(scan, key="side")
def measure(tile: Tile, ctx: gf.TaskContext) -> float:
    print(ctx.attempt)
    return root(tile)


with gf.open(":memory:", workers=0, max_retries=0, display="none") as session:
    session.run(tiles).task().bundle(sys.argv[1])
"""


def test_S69_a_job_type_of_a_script_or_notebook_goes_along_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TYPED)
    subprocess.run([sys.executable, "script.py", "bad.zip"], cwd=tmp_path, check=True, capture_output=True)
    bundle = gf.unbundle(tmp_path / "bad.zip")
    assert bundle.told.code.why is None
    text = bundle.code["handlers_of_notebook.py"]
    assert '@tiles.each(scan, key="side")' in text
    assert "session" not in text
    ran = bundle.run()
    assert (ran.error_type, ran.same, ran.output) == ("ValueError", True, "1\n")


def test_S69_a_task_that_dies_or_hangs_here_ends_alone_and_is_told_of(session: gf.Session, tmp_path: Path) -> None:
    def ends(params: dict[str, Any]) -> dict[str, Any]:
        import os
        import time

        print("last words", flush=True)
        time.sleep(params["hang"])
        if params["die"]:
            os.kill(os.getpid(), params["die"])
        raise ValueError

    session.register(contract("ends"), {"ends": ends})
    bundle = session.run("ends", hang=0, die=0).task().bundle(tmp_path / "bad.zip")
    died = bundle.run({"die": 9})
    assert (died.error_type, died.output) == ("WorkerDied", "last words\n")
    assert "with signal 9 (SIGKILL), and not as then" in " ".join(str(died).split())
    late = bundle.run({"hang": 600}, timeout=0.5)
    assert (late.error_type, late.error) == ("TaskTimeout", "it ran longer than 0.5 s, and was ended")


def test_S69_a_bundle_of_a_task_whose_process_died_has_its_stack_its_last_prints_and_its_memory(
    open_session: OpenSession, tmp_path: Path
) -> None:
    def grows(params: dict[str, Any]) -> None:
        import os
        import time

        print("growing", flush=True)
        held = []
        for _ in range(15):  # so long that its memory is looked at
            held.append(bytearray(b"x") * 8_000_000)
            time.sleep(0.1)
        os.kill(os.getpid(), params["number"])

    session = open_session(":memory:", workers=1, max_retries=0)
    session.register(contract("grows"), {"grows": grows})
    job = session.run("grows", number=11)
    bundle = job.task().bundle(tmp_path / "bad.zip")
    assert "in grows" in str(bundle.traceback)
    said = re.fullmatch(
        r"growing\ngeoflow: its process had ([\d.]+) MB in memory(, \d+ s before [\d.]+ MB)*", str(bundle.output)
    )
    assert said is not None, bundle.output
    assert float(said[1]) > 30  # it is looked at now and then
    assert "geoflow: its process had" in members(tmp_path / "bad.zip")["index.html"].decode()


def test_S69_what_is_too_much_to_be_read_is_not_sent_and_a_page_has_the_beginning_of_it(
    session: gf.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = session.run("acts", tasks=[{"value": ["word"] * 20_000}, {}])
    job.task("s1-t0").bundle(tmp_path / "long.zip")
    page = members(tmp_path / "long.zip")["index.html"]
    assert len(page) < 150_000  # what it was given is longer
    assert b"task.json has all" in page
    monkeypatch.setattr("geoflow.tools.bundle.names.MOST_TEXT", 100_000)
    with pytest.raises(
        ParameterError, match=r"task s1-t0 .* has [\d.]+ kB of parameters, results and texts, more than"
    ):
        job.task("s1-t0").bundle(tmp_path / "longer.zip")
    assert not [*tmp_path.glob("*longer*")]


def test_S69_a_task_that_has_not_run_yet_is_sent_too(session: gf.Session, tmp_path: Path) -> None:
    lease, _ = planned(session.store)
    session.store.release(lease)
    job = session.job(lease.job_id)
    bundle = job.task(str(job.tasks()["task_id"][0])).bundle(tmp_path / "queued.zip")
    assert (bundle.error, bundle.traceback, bundle.output) == (None, None, None)
    assert repr(bundle).splitlines()[1].startswith("queued: ")
    assert "○ queued" in text_of(str(bundle._repr_html_()))


# The files that go along


def test_S69_files_are_chosen_by_parameter_pattern_or_path_and_nothing_else_goes(
    session: gf.Session, tmp_path: Path
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "a.tif").write_text("a")
    (folder / "a.tif.aux.xml").write_text("aux")
    (tmp_path / "mask.gpkg").write_text("mask")
    given = {"scene": {"path": str(folder / "a.tif")}, "mask": str(tmp_path / "mask.gpkg"), "all": str(folder)}
    given |= {"gone": str(folder / "b.tif"), "far": "https://example.org/c.tif", "name": "a word"}
    task = session.run("acts", tasks=[given]).task("s1-t0")

    def sent(*chosen: str) -> dict[str, Any]:
        bundle = task.bundle(tmp_path / "it.zip", inputs=chosen, overwrite=True)
        return {each.name: each.place or each.why for each in bundle.told.inputs.named}

    none = "it was not chosen"
    far = {"far": "it is an address"}
    assert sent() == {"scene.path": none, "mask": none, "all": none, **far}
    assert sent("*") == {"scene.path": "0/a.tif", "mask": "2/mask.gpkg", "all": none, **far}
    assert sent("path") == {"scene.path": "0/a.tif", "mask": none, "all": none, **far}
    assert sent("*.gpkg") == {"scene.path": none, "mask": "0/mask.gpkg", "all": none, **far}
    assert sent("all") == {"scene.path": none, "mask": none, "all": "0", **far}
    assert {"inputs/0/a.tif", "inputs/0/a.tif.aux.xml"} < {*members(tmp_path / "it.zip")}
    assert sent("gone")["gone"] == "there is no file of that name"
    with pytest.raises(ParameterError, match=r"is called, or names, 'nope'. It has scene.path, mask, all, gone,"):
        sent("nope")
    with pytest.raises(ParameterError, match=r"is 4 B in 2 files \(a.tif.aux.xml 3 B, a.tif 1 B\), more than"):
        task.bundle(tmp_path / "it.zip", inputs="path", limit=3e-6, overwrite=True)


def test_S69_no_bundle_is_written_over_another_or_half(session: gf.Session, tmp_path: Path) -> None:
    task, path = session.run("acts", tasks=[{}]).task("s1-t0"), tmp_path / "it.zip"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="is there already: give another name, or overwrite=True"):
        task.bundle(path)
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere to write it.zip to"):
        task.bundle(tmp_path / "nowhere" / "it.zip")
    with pytest.raises(ParameterError, match=re.escape("give one that ends in .zip")):
        task.bundle(tmp_path / "it.tar")
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir() if "it" in each.name] == ["it.zip"]


# Bundles that are cut, changed, or made to do harm

Change = Callable[[dict[str, bytes]], object]


def told(**changes: Any) -> Change:
    """Other words in ``task.json``: values at names with dots, as ``code__place``."""

    def change(inside: dict[str, bytes]) -> None:
        document = json.loads(inside["task.json"])
        for name, value in changes.items():
            *outer, last = name.split("__")
            held = document
            for part in outer:
                held = held[part]
            held[last] = value
        inside["task.json"] = json.dumps(document).encode()

    return change


def added(name: str, text: bytes = b"x = 1\n") -> Change:
    return lambda inside: inside.update({name: text})


def place(module: str, path: str) -> dict[str, Any]:
    return {"module": module, "path": path, "key": None, "is_called": False}


CRAFTED: dict[str, tuple[Change, str]] = {
    "climbs": (added("inputs/../../evil.txt"), r"'inputs/../../evil.txt' in it leads out of the bundle"),
    "from the root": (added("/etc/evil"), "'/etc/evil' in it leads out of the bundle"),
    "with a drive": (added("inputs/C:evil"), "leads out of the bundle"),
    "backslashes": (added("inputs\\..\\evil"), "leads out of the bundle"),
    "odd letters": (added("inputs/\u202egnp.exe"), "has characters or parts that no name should have"),
    "a folder": (added("inputs/folder/", b""), "has characters or parts"),
    "long": (added("inputs/" + "x" * 300), "is longer than 240 bytes"),
    "elsewhere": (added("geoflow/__init__.py"), "is nothing that a bundle has"),
    "no module": (added("code/__import__('os').py"), "is no name of a module"),
    "twice": (added("TASK.json"), "is nothing that a bundle has"),
    "twice, as some disks see it": (added("inputs/0/B.txt"), "[bB].txt' in it is there twice"),
    "in a file": (added("inputs/0/b.txt/c"), "lies in a file"),
    "code that is not told of": (added("code/evil.py"), "what is in it and what it says differ"),
    "inputs that are not told of": (added("inputs/9/evil"), "what is in it and what it says differ"),
    "code that was changed": (added("code/sent/areas.py"), "was changed: sent/areas.py is not as it was sent"),
    "code that is no text": (added("code/sent/areas.py", b"\xff\xfe"), "is no text"),
    "inputs of another size": (added("inputs/0/b.txt", b"longer than it was"), "is not as large as it was sent"),
    "no task": (lambda inside: inside.pop("task.json"), "is no bundle of geoflow's: it has no task.json"),
    "no JSON": (added("task.json", b"{"), "is no bundle that can be read: in its task.json, it is not sound"),
    "deep JSON": (added("task.json", b"[" * 100_000), "is not sound"),
    "newer": (told(format=99), "whose bundles are newer"),
    "words for numbers": (told(task__stage="one"), r"in its task.json, task.stage is not sound"),
    "a call for a name": (told(code__place=place("os", "system('evil')")), "code.place.path is not sound"),
    "a module of Python's": (told(code__place=place("os", "system")), "its handler is in 'os', which it has not"),
    "a way out of its inputs": (
        told(inputs__places={"/data/b.txt": "../../evil"}),
        r"it has no '../../evil' of which it speaks",
    ),
}


@pytest.fixture
def good(sent: gf.JobHandle, tmp_path: Path) -> Path:
    return sent.task("t1").bundle(tmp_path / "good.zip", inputs="*").path


def packed(path: Path, inside: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, read in inside.items():
            about = zipfile.ZipInfo("placeholder")
            about.filename = about.orig_filename = name
            about.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(about, read)
    return path


def refused(path: Path, why: str) -> None:
    before = {*path.parent.rglob("*")}
    with pytest.raises(BundleError, match=why) as caught:
        gf.unbundle(path)
    assert len(str(caught.value)) < 600
    assert {*path.parent.rglob("*")} == before


def test_S69_a_crafted_bundle_is_refused_and_what_is_wrong_with_it_is_named(
    good: Path, tmp_path: Path, trace: Path
) -> None:
    trace.write_text("")
    inside = members(good)
    assert isinstance(gf.unbundle(packed(tmp_path / "same.zip", inside)), Bundle)
    for what, (change, why) in CRAFTED.items():
        changed = dict(inside)
        change(changed)
        try:
            refused(packed(tmp_path / "bad.zip", changed), why)
        except BaseException as exc:
            exc.add_note(f"a bundle with: {what}")
            raise
    assert trace.read_text() == ""


def test_S69_a_link_an_encrypted_file_and_a_zip_bomb_are_refused(good: Path, tmp_path: Path) -> None:
    inside = members(good)
    path = packed(tmp_path / "bad.zip", inside)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("inputs/0/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refused(path, "'inputs/0/link' in it is no plain file")
    raw = packed(path, inside).read_bytes()
    entry = raw.index(b"PK\x01\x02")
    path.write_bytes(raw[: entry + 8] + bytes([raw[entry + 8] | 1]) + raw[entry + 9 :])
    refused(path, "is encrypted, or packed in a way")
    bomb = packed(path, {**inside, "index.html": bytes(100_000_000)})
    assert bomb.stat().st_size < 1_000_000
    refused(path, "is 100.0 MB of text, 100.0 MB with others: too much")
    # Two entries that lead to the same bytes, as in bombs that are small and grow without end.
    raw = packed(path, inside | {"README.txt": inside["run.py"]}).read_bytes()
    first, second = (raw.index(name, raw.index(b"PK\x01\x02")) - 46 for name in (b"README.txt", b"run.py"))
    offset = raw[second + 42 : second + 46]
    path.write_bytes(raw[: first + 42] + offset + raw[first + 46 :])
    refused(path, "share their bytes|cannot be read")


def test_S69_a_bundle_that_was_cut_anywhere_is_refused(good: Path, tmp_path: Path) -> None:
    raw, path = good.read_bytes(), tmp_path / "cut.zip"
    for size in (0, 1, 100, len(raw) // 2, len(raw) - 30, len(raw) - 1):
        path.write_bytes(raw[:size])
        refused(path, "cut.zip cannot be read: .*It may have been cut on its way: have it sent again")
    refused(tmp_path / "nowhere.zip", "There is no file .*nowhere.zip")


def test_S69_inputs_that_were_changed_or_are_too_large_are_not_written(good: Path, tmp_path: Path) -> None:
    inside = members(good)
    changed = gf.unbundle(packed(tmp_path / "bad.zip", inside | {"inputs/0/b.txt": b"other"}))
    with pytest.raises(BundleError, match=r"'inputs/0/b.txt' in the bundle is not as it was sent"):
        changed.unpack(tmp_path / "there")
    with pytest.raises(BundleError, match=r"take 5 B, more than the limit of 1e-06 MB: say limit= for more"):
        changed.run(limit=1e-6)
    assert not (tmp_path / "there").exists()
    assert not [*tmp_path.glob(".there*")]


NAMES = st.lists(st.sampled_from(["..", ".", "", "a", "inputs", "code", "b.py", "C:", "\\", "\0", "é", "x" * 99, "~"]))


@given(NAMES.map("/".join))
@example("inputs/0/a.tif")
def test_S69_no_name_that_is_taken_leads_out_of_a_folder(name: str) -> None:
    if problem_of(name) is None:
        assert os.path.normpath(os.path.join("/there", name)).startswith("/there/")
        assert name == os.path.normpath(name)
    assert problem_of("inputs/0/a.tif") is None


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3), VALUES)
def test_a_value_is_put_where_a_name_says_and_nowhere_else(parameters: dict[str, Any], value: Any) -> None:
    changed = put(parameters, {"b": value}) if "b" in parameters else put(parameters, {})
    assert changed == ({**parameters, "b": value} if "b" in parameters else parameters)
    names = hidden_in(changed, parameters)
    assert all(name.split(".")[0] == "b" for name in names)


def test_S44_only_what_looks_secret_is_hidden_in_code() -> None:
    text = (
        '"""Doc of api_key: of the service."""\n'
        'def f(password="p1", *, token=None, key="row"):\n'
        "    token = read(key)  # see token=p2\n"
        '    url = f"https://u:p3@host/{key}"\n'
        '    said = f"{log_in(password=\'p5\')} as {key}", f"{log_in(token=token)} as {key:>{len(key)}}"\n'
        '    return call(token=token, api_key="p4", headers={"Authorization": b"p5"}, sep="é"), "p=6"\n'
    )
    shown, found = hide(text, "a.py", gf.open(":memory:", workers=0).settings.secrets)
    assert not re.search(r"p[1-5]", shown)
    assert "token = read(key)" in shown
    assert 'key="row"' in shown
    assert 'f"{log_in(token=token)} as {key:>{len(key)}}"' in shown
    assert 'sep="é"), "p=6"' in shown
    hidden = sorted(each.partition(" in line")[0] for each in found)
    assert hidden == ["Authorization", "a text", "api_key", "password", "password"]
    compile(shown, "a.py", "exec")


# In a terminal


def test_the_verbs_write_show_and_run_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PACKAGE["sent/tiles.py"].replace("from .areas import area\n", "").replace("area(", "len(")
    (tmp_path / "broken_job.py").write_text(text)
    (tmp_path / "in.txt").write_text("three")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    one = json.dumps([{"path": "in.txt", "by": 1, "token": "x"}])
    assert main(["--workers", "0", "run", "broken_job.py", f"tasks={one}"]) == 1
    assert main(["bundle", "bad.zip", "--load", "broken_job.py", "--inputs", "*"]) == 0
    assert "TypeError: len() takes exactly one argument (2 given)" in capsys.readouterr().out
    assert main(["bundle", "bad.zip", "--load", "broken_job.py"]) == 2
    assert "bad.zip is there already: give another name, or say --overwrite." in capsys.readouterr().err
    assert main(["bundle", "read.zip"]) == 0
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert "It cannot be run elsewhere: its job type was not known where the bundle was made" in out
    assert "in bundle.source" in out
    assert f"--load {tmp_path / 'broken_job.py'} --overwrite has its code go along." in err
    assert main(["unbundle", "bad.zip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"]["task_id"] == "t0"
    assert main(["unbundle", "bad.zip", "--run"]) == 2
    assert "What token had was not sent, since it looks secret. Give a value of yours with --param" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert main(["unbundle", "bad.zip", "--run", "--param", "token=mine"]) == 1
    assert "as it did then" in capsys.readouterr().out
    assert main(["unbundle", "bad.zip", "there"]) == 0
    assert (tmp_path / "there/inputs/0/in.txt").read_text() == "three"
    assert main(["unbundle", "bad.zip", "there"]) == 2
    assert main(["unbundle", "in.txt"]) == 2
    del sys.modules["broken_job"]
