"""Whatever changes in the code or in the files of the examples, an update comes to what a clean run comes to."""

from __future__ import annotations

import ast
import importlib
import linecache
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from tests.helpers.profiles import is_thorough
from tests.helpers.sessions import ROOT, OpenSession

FEW = 6  # mutants of each example, unless more was asked for
Outcome = tuple[str, Any]


class Example:
    """A copy of an example in a folder of its own, which is changed there, and the files that its job is given."""

    def __init__(self, name: str, folder: Path, open_session: OpenSession) -> None:
        self.source = Path(ROOT, "examples", f"{name}.py").read_text().partition("\n\ndef main")[0]
        self.job_type = name
        self.module = f"mutant_{name}"
        self.path = folder / f"{self.module}.py"
        self.data = folder / "data"
        self.data.mkdir()
        self._open, self._folder, self._stores = open_session, folder, 0
        self.session = open_session(folder / "work.db", workers=0)
        for number in range(3):
            text = " ".join(str(1 + (number + cell) % 4) for cell in range(16))
            head = "ncols 4\nnrows 4\nxllcorner 0\nyllcorner 0\ncellsize 1\nNODATA_value -9999\n"
            text = head + text if name == "tile_stats" else text
            (self.data / f"tile_{number}.asc").write_text(text)

    def says(self, source: str) -> None:
        """Have the file say *source* from now on."""
        self.path.write_text(source)
        linecache.checkcache()
        sys.modules.pop(self.module, None)
        importlib.invalidate_caches()

    def is_job_type(self) -> bool:
        """Whether what the file says by now can be registered at all."""
        try:
            gf.Session(":memory:", workers=0).register(str(self.path))
        except gf.errors.DefinitionError:
            return False
        return True

    def updated(self) -> tuple[gf.JobHandle, Outcome]:
        return self._outcome(self.session)

    def clean(self) -> Outcome:
        """What comes out where nothing was computed before."""
        self._stores += 1
        with self._open(self._folder / f"clean{self._stores}.db", workers=0) as session:
            return self._outcome(session)[1]

    def _outcome(self, session: gf.Session) -> tuple[gf.JobHandle, Outcome]:
        session.register(str(self.path))
        job = session.run(self.job_type, folder=str(self.data), on_existing="update")
        results = [job.tasks()["result"].tolist(), job.result()] if job.status == "completed" else job.error
        return job, (str(job.status), results)


@pytest.fixture(params=["tile_stats", "land_cover"])
def example(request: pytest.FixtureRequest, tmp_path: Path, open_session: OpenSession) -> Iterator[Example]:
    made = Example(request.param, tmp_path, open_session)
    made.says(made.source)
    yield made
    sys.modules.pop(made.module, None)


def mutants(source: str) -> list[str]:
    """*source* with one number or text in its functions or constants changed, or one comparison turned around."""
    found = []
    for number, node in enumerate(ast.walk(ast.parse(source))):
        change: Callable[[Any], None] | None = None
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            change = _grow
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            change = _turn
        elif isinstance(node, ast.Constant) and node.value in ("forest", "tile", "all", "high"):
            change = _call_otherwise
        if change is not None:
            tree = ast.parse(source)
            change(list(ast.walk(tree))[number])
            found.append(ast.unparse(tree))
    return found


def _grow(node: Any) -> None:
    node.value += 1


def _turn(node: Any) -> None:
    node.ops = [ast.NotEq() if isinstance(node.ops[0], ast.Eq) else ast.Eq()]


def _call_otherwise(node: Any) -> None:
    node.value += "_"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_S48_S49_after_any_change_of_the_code_an_update_comes_to_what_a_clean_run_does(
    example: Example, pytestconfig: pytest.Config
) -> None:
    assert example.updated()[1][0] == "completed"
    changed = mutants(example.source)
    if not is_thorough(pytestconfig):
        changed = random.Random(0).sample(changed, FEW)
    for mutant in changed:
        example.says(mutant)
        if not example.is_job_type():
            continue
        assert example.updated()[1] == example.clean(), mutant
    example.says(example.source)
    assert example.updated()[1] == example.clean()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_S49_after_any_change_of_the_files_an_update_comes_to_what_a_clean_run_does(example: Example) -> None:
    example.updated()
    tile = example.data / "tile_1.asc"
    text = tile.read_text()
    for change in (
        lambda: tile.write_text(text[:-1] + "2"),
        lambda: tile.write_text(text[:-1]),
        lambda: tile.rename(example.data / "tile_7.asc"),
        lambda: (example.data / "tile_0.asc").replace(tile),
        tile.unlink,
        lambda: tile.write_text(text),
    ):
        change()
        assert example.updated()[1] == example.clean()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_S48_a_comment_a_docstring_and_a_line_that_moves_change_nothing(example: Example) -> None:
    example.updated()
    text = example.source.replace('"""The cells', '"""All cells').replace('"""How many', '"""So many')
    example.says("# A comment.\n\n\n" + text.replace("\n\n", "\n\n\n\n# another\n"))
    job, _ = example.updated()
    assert list(job.tasks()["reused_from"].isna()) == [True, *[False] * 4], "all but the scan, which looks again"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_S48_what_ran_as_it_was_imported_does_not_count_as_the_code_that_its_file_has_by_now(example: Example) -> None:
    example.updated()
    signs = ("NODATA = -10000.0", "'forest_'")
    mutant = next(mutant for mutant in mutants(example.source) if any(sign in mutant for sign in signs))
    example.path.write_text(mutant)  # and the module stays as it was imported, in this very process
    linecache.checkcache()
    job, _ = example.updated()
    assert job.stale > 0
    example.says(mutant)
    assert example.updated()[1] == example.clean()


HELPER = "FACTOR = {}\n\ndef times(n):\n    return n * FACTOR\n"
HELPED = """
import geoflow as gf
from {helper} import times

helped = gf.JobType("helped")

@helped.stage
def numbers(p) -> list[int]:
    return [1, 2, 3]

@helped.each(numbers)
def multiplied(n: int) -> int:
    return times(n)

@helped.reduce(multiplied)
def total(found: list[int]) -> dict:
    return {{"sum": sum(found)}}
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_S48_a_helper_of_another_module_counts_and_a_comment_there_does_not(
    open_session: OpenSession, tmp_path: Path
) -> None:
    helper = tmp_path / "mutant_helper.py"
    helper.write_text(HELPER.format(2))
    (tmp_path / "mutant_helped.py").write_text(HELPED.format(helper=helper.stem))
    session = open_session(workers=1)
    sys.path.insert(0, str(tmp_path))
    try:
        session.register(tmp_path / "mutant_helped.py")

        def updated() -> tuple[dict[str, Any], list[bool]]:
            job = session.run("helped", on_existing="update")
            return job.result(), job.tasks()["reused_from"].notna().tolist()

        assert updated() == ({"sum": 12}, [False] * 5)
        helper.write_text("# A comment.\n" + HELPER.format(2))
        assert updated() == ({"sum": 12}, [False, True, True, True, True])
        helper.write_text(HELPER.format(30))
        assert updated() == ({"sum": 180}, [False] * 5)
        helper.write_text(HELPER.format(2))
        assert updated() == ({"sum": 12}, [False, True, True, True, True])
    finally:
        sys.path.remove(str(tmp_path))
        for name in ("mutant_helper", "mutant_helped"):
            sys.modules.pop(name, None)
