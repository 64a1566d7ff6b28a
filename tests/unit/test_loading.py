"""S1, S5: job types found by name: built in, in a file, in a module; and what is said when they cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoflow.builtin.hello_world import ALL_HANDLERS, HelloWorld
from geoflow.errors import DefinitionError
from geoflow.jobtypes.loading import BUILT_IN, find, load
from geoflow.jobtypes.registry import Registry

JOB = """
def handler(params):
    return {"success": True}


class {name}:
    job_type = "{job_type}"
    description = "for a test"
    stages = [{{"number": 1, "name": "one", "task_type": "{job_type}_task"}}]

    @staticmethod
    def validate_job_parameters(params):
        return params

    @staticmethod
    def generate_job_id(params):
        return "0" * 64

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return []

    @staticmethod
    def finalize_job(context=None):
        return {{}}


ALL_JOBS = {{**globals().get("ALL_JOBS", {{}}), "{job_type}": {name}}}
ALL_HANDLERS = {{**globals().get("ALL_HANDLERS", {{}}), "{job_type}_task": handler}}
"""


def job(job_type: str) -> str:
    """The source of a job type."""
    return JOB.replace("{{", "{").replace("}}", "}").replace("{name}", job_type.title()).replace("{job_type}", job_type)


@pytest.fixture(autouse=True)
def _imports_are_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def written(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def refusal(name: str | Path) -> str:
    registry = Registry()
    with pytest.raises(DefinitionError) as caught:
        find(registry, str(name))
    return str(caught.value)


# Found


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_built_in_job_type_is_found_by_its_name_in_any_spelling(name: str) -> None:
    registry = Registry()
    assert find(registry, name.replace("_", "-").upper()) == name
    assert list(registry) == [name]


def test_S5_a_job_type_that_is_registered_goes_before_the_built_in_one_of_its_name() -> None:
    class Mine(HelloWorld):
        description = "my own"

    registry = Registry()
    registry.register(Mine, ALL_HANDLERS)
    assert find(registry, "hello-world") == "hello_world"
    assert registry.get("hello_world").job_class is Mine


def test_the_one_job_type_of_a_file_is_found_by_the_path_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "jobs" / "tile_job.py", job("tiles"))
    registry = Registry()
    assert find(registry, str(path)) == "tiles"
    assert registry.get("tiles").job_class.__module__ == "tile_job"


def test_a_path_may_be_relative(tmp_path: Path) -> None:
    written(tmp_path / "jobs" / "tile_job.py", job("tiles"))
    assert find(Registry(), "jobs/tile_job.py") == "tiles"
    assert find(Registry(), "./jobs/tile_job.py") == "tiles"


def test_one_of_several_job_types_of_a_file_is_picked_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path / "both_jobs.py", job("tiles") + job("scenes"))
    registry = Registry()
    assert find(registry, f"{path}:Scenes") == "scenes"
    assert list(registry) == ["scenes", "tiles"]
    assert refusal(path) == f"{path} has 2 job types: say which, such as {path}:scenes."
    assert refusal(f"{path}:scenery") == f"{path} has no job type 'scenery'; it has scenes, tiles."


def test_a_job_type_of_a_module_in_a_package_is_found_from_the_folder_that_one_is_in(tmp_path: Path) -> None:
    written(tmp_path / "user_package" / "__init__.py", "")
    written(tmp_path / "user_package" / "tile_job.py", job("tiles") + job("scenes"))
    assert find(Registry(), "user_package.tile_job:tiles") == "tiles"
    assert "has 2 job types: say which, such as user_package.tile_job:scenes." in refusal("user_package.tile_job")


def test_what_lies_beside_a_file_can_be_imported_by_it(tmp_path: Path) -> None:
    written(tmp_path / "jobs" / "beside_the_job.py", "NAME = 'tiles'\n")
    path = written(tmp_path / "jobs" / "tile_job.py", "from beside_the_job import NAME\n" + job("tiles"))
    assert find(Registry(), str(path)) == "tiles"


def test_a_file_is_one_module_however_its_path_is_written(tmp_path: Path) -> None:
    path = written(tmp_path / "jobs" / "tile_job.py", job("tiles"))
    (tmp_path / "link").symlink_to(tmp_path / "jobs")
    module = load(str(path))
    assert load(str(path)) is module
    assert load(str(tmp_path / "jobs" / ".." / "jobs" / "tile_job.py")) is module
    assert load(str(tmp_path / "link" / "tile_job.py")) is module


def test_a_file_that_was_mended_can_be_loaded_after_it_failed(tmp_path: Path) -> None:
    path = written(tmp_path / "tile_job.py", "raise RuntimeError('not yet')\n")
    assert "RuntimeError: not yet" in refusal(path)
    written(path, job("tiles"))
    assert find(Registry(), str(path)) == "tiles"


# Not found


def test_an_unknown_name_lists_the_built_in_job_types_and_suggests_the_near_one() -> None:
    message = refusal("helo_world")
    assert message.startswith("Unknown job type 'helo_world'. Did you mean 'hello_world'?")
    assert "Registered here: hello_world, list_container_contents." in message


def test_a_missing_file_is_named_with_its_whole_path(tmp_path: Path) -> None:
    assert refusal("no_such_job.py") == f"There is no file {tmp_path / 'no_such_job.py'}."
    (tmp_path / "folder.py").mkdir()
    assert refusal("folder.py") == f"There is no file {tmp_path / 'folder.py'}."


@pytest.mark.parametrize(
    "name", ["no_such_package.tile_job", "json.no_such_module", "json.decoder.deeper", "a..b", ".hidden", "json."]
)
def test_a_missing_module_is_named_and_a_file_suggested(name: str) -> None:
    assert refusal(name) == f"There is no module {name!r}. For a file, give its path with .py at the end."


@pytest.mark.parametrize("name", ["tile-job.py", "3d.py", "tile job.py"])
def test_a_file_whose_name_cannot_be_imported_is_told_to_be_renamed(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, job("tiles"))
    assert refusal(path) == f"{name} cannot be imported: rename it to letters, digits and '_'."


@pytest.mark.parametrize("name", ["json", "sys", "geoflow"])
def test_a_file_that_is_called_like_a_loaded_module_is_told_to_be_renamed(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / f"{name}.py", job("tiles"))
    before = sys.modules[name]
    assert refusal(path) == f"{name}.py has the name of a module that is loaded already: rename the file."
    assert sys.modules[name] is before


def test_two_files_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    first = written(tmp_path / "first" / "tile_job.py", job("tiles"))
    second = written(tmp_path / "second" / "tile_job.py", job("scenes"))
    assert find(Registry(), str(first)) == "tiles"
    assert "tile_job.py has the name of a module that is loaded already" in refusal(second)


def test_a_file_is_not_taken_for_another_that_comes_before_it_on_the_path(tmp_path: Path) -> None:
    """Loading the two others put both folders on the path, the second before the first."""
    load(str(written(tmp_path / "first" / "other_job.py", job("tiles"))))
    load(str(written(tmp_path / "second" / "another_job.py", job("tiles"))))
    wanted = written(tmp_path / "first" / "tile_job.py", job("tiles"))
    written(tmp_path / "second" / "tile_job.py", job("scenes"))
    try:
        loaded = load(str(wanted))
    except DefinitionError as refused:
        assert "tile_job.py" in str(refused)  # noqa: PT017 - either is right; the wrong file is not
    else:
        assert loaded.__file__ == str(wanted)


def test_S5_what_is_wrong_with_the_job_types_of_a_file_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "tile_job.py", job("tiles").replace("finalize_job", "finalise_job"))
    assert refusal(path) == "Tiles: the method finalize_job is missing."
    empty = written(tmp_path / "empty_job.py", "")
    assert "Module 'empty_job' has no ALL_JOBS dict" in refusal(empty)


# Found, and broken

BROKEN = {
    "raises": ("import os\nTILES = 1 / 0\n", ["line 2, in <module>", "TILES = 1 / 0", "ZeroDivisionError: division"]),
    "does not parse": ("import os\ndef tiles(:\n", ["line 2", "def tiles(:", "SyntaxError: invalid syntax"]),
    "misses a package": ("import no_such_package\n", ["line 1", "No module named 'no_such_package'"]),
    "misses a name": ("from json import nothing_there\n", ["line 1", "cannot import name 'nothing_there' from 'json'"]),
    "raises in a function": (
        "def tiles():\n    raise LookupError('where')\ntiles()\n",
        ["line 3, in <module>", "line 2, in tiles", "LookupError: where"],
    ),
    "raises from another": (
        "try:\n    {}['a']\nexcept KeyError as exc:\n    raise OSError('no tiles') from exc\n",
        ["line 2", "KeyError: 'a'", "direct cause", "line 4", "OSError: no tiles"],
    ),
    "is refused": (
        "import geoflow as gf\ntiles = gf.JobType('tiles')\n@tiles.stage(inputs=['a'])\ndef read(p): ...\n",
        ["line 3, in <module>", "(got ['a'])", "Extra inputs are not permitted", "is gf.InputFile"],
    ),
    "leaves": ("import sys\nsys.exit(3)\n", ["line 2, in <module>", "sys.exit(3)", "SystemExit: 3"]),
}


def check_shown(message: str, place: Any, told: list[str]) -> None:
    lines = message.splitlines()
    assert lines[0] == f"{place} could not be imported:"
    assert len(lines) <= 20, "it is short"
    for text in told:
        assert text in message
    assert "geoflow/jobtypes/" not in message
    assert "importlib/" not in message
    assert "<frozen" not in message


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_file_that_cannot_be_imported_shows_its_own_line_and_none_of_ours(tmp_path: Path, kind: str) -> None:
    source, told = BROKEN[kind]
    path = written(tmp_path / "broken_job.py", source)
    check_shown(refusal(path), path, [*told, f'File "{path}"'])
    assert "broken_job" not in sys.modules


@pytest.mark.parametrize("kind", list(BROKEN))
def test_so_does_a_module_of_a_package(tmp_path: Path, kind: str) -> None:
    source, told = BROKEN[kind]
    written(tmp_path / "user_package" / "__init__.py", "")
    path = written(tmp_path / "user_package" / "broken_job.py", source)
    check_shown(refusal("user_package.broken_job"), "user_package.broken_job", [*told, f'File "{path}"'])


@pytest.mark.parametrize("kind", list(BROKEN))
def test_so_does_the_package_around_a_module(tmp_path: Path, kind: str) -> None:
    source, told = BROKEN[kind]
    path = written(tmp_path / "broken_package" / "__init__.py", source)
    written(tmp_path / "broken_package" / "tile_job.py", job("tiles"))
    check_shown(refusal("broken_package.tile_job"), "broken_package.tile_job", [*told, f'File "{path}"'])


def test_a_file_beside_it_that_cannot_be_imported_is_shown_with_the_line_that_asked_for_it(tmp_path: Path) -> None:
    beside = written(tmp_path / "beside_the_job.py", "\n\nTILES = 1 / 0\n")
    path = written(tmp_path / "broken_job.py", "import beside_the_job\n")
    message = refusal(path)
    check_shown(message, path, [f'File "{path}", line 1', f'File "{beside}", line 3', "ZeroDivisionError"])


def test_a_folder_with_importlib_in_its_name_hides_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "importlib tricks" / "broken_job.py", "TILES = 1 / 0\n")
    message = refusal(path)
    assert f'File "{path}", line 1, in <module>' in message
    assert "geoflow/jobtypes/loading.py" not in message


def test_an_error_deep_in_calls_is_shown_by_its_last_lines(tmp_path: Path) -> None:
    source = "def tiles(n):\n    return tiles(n - 1) + 1 if n else 1 / 0\ntiles(50)\n"
    message = refusal(written(tmp_path / "broken_job.py", source))
    assert message.endswith("ZeroDivisionError: division by zero")
    assert len(message.splitlines()) <= 16


def test_an_interrupt_while_a_file_is_imported_is_the_users(tmp_path: Path) -> None:
    path = written(tmp_path / "slow_job.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(str(path))
