"""How user code travels: by reference where a worker can import it, by value where not, or refused by name."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.builtin import hello_world
from geoflow.errors import DefinitionError
from geoflow.usercode.packing import Code, pack, unpack, unshippable
from tests.helpers.sessions import OpenSession

UNPACK = """
import json, pickle, sys
from geoflow.usercode.packing import Code, unpack
target = unpack(Code(*pickle.load(sys.stdin.buffer)))
if isinstance(target, type):
    target = target.finalize_job
print(json.dumps(target({"n": 2})))
"""


def elsewhere(code: Code) -> Any:
    """What the function that travels as *code* makes of ``{"n": 2}`` in a fresh process with this one's path."""
    done = subprocess.run(
        [sys.executable, "-c", UNPACK],
        input=pickle.dumps(tuple(code)),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def cell(source: str, **names: Any) -> dict[str, Any]:
    """What a notebook has after a cell with *source* was run in it."""
    namespace = {"__name__": "__main__", **names}
    exec(source, namespace)
    return namespace


def doubled(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": params["n"] * 2}


class Doubler:
    def __init__(self, **kept: Any) -> None:
        self.__dict__.update(kept)

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        return doubled(params)

    @staticmethod
    def static(params: dict[str, Any]) -> dict[str, Any]:
        return doubled(params)

    def method(self, params: dict[str, Any]) -> dict[str, Any]:
        return doubled(params)


# By reference


@pytest.mark.parametrize(
    ("target", "reference"),
    [
        (hello_world.greet, "geoflow.builtin.hello_world:greet"),
        (hello_world.HelloWorld, "geoflow.builtin.hello_world:HelloWorld"),
        (hello_world.HelloWorld.finalize_job, "geoflow.builtin.hello_world:HelloWorld.finalize_job"),
        (Doubler.static, f"{__name__}:Doubler.static"),
        (json.loads, "json:loads"),
    ],
)
def test_a_function_or_class_of_a_module_travels_as_its_name(target: Any, reference: str) -> None:
    code = pack(target)
    assert code.reference == reference
    assert code.value is None
    assert len(code.version) == 12
    assert unpack(code) is target
    assert unshippable(target) is None


def test_S25_code_carries_the_package_whose_classes_are_the_job_types_own() -> None:
    assert pack(hello_world.greet).own == ("geoflow",)
    assert pack(doubled).own == (__name__.partition(".")[0],)
    assert pack(cell("def handler(params): return {}")["handler"]).own == ("__main__",)


@pytest.mark.parametrize("target", [functools.partial(doubled), functools.partial(functools.partial(doubled))])
def test_S25_a_partial_is_owned_by_the_package_of_its_function(target: Any) -> None:
    assert pack(target).own == pack(doubled).own


@pytest.fixture
def module_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that a user writes, on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "tiles_of_a_user.py"
    path.write_text("def handler(params):\n    return params['n'] + 1\n")
    yield path
    sys.modules.pop("tiles_of_a_user", None)


def test_S5_the_version_changes_when_the_file_of_the_module_does(module_file: Path) -> None:
    handler = importlib.import_module("tiles_of_a_user").handler
    first, again = pack(handler), pack(handler)
    assert first == again
    module_file.write_text("def handler(params):\n    return params['n'] + 2\n")
    edited = pack(handler)
    assert edited.reference == first.reference == "tiles_of_a_user:handler"
    assert edited.version != first.version
    assert elsewhere(edited) == 4, "a fresh process imports the file as it is now"
    module_file.unlink()
    assert pack(handler).version not in (first.version, edited.version)


def test_what_a_handler_uses_of_a_module_that_no_worker_can_import_is_refused_by_name(module_file: Path) -> None:
    used = importlib.import_module("tiles_of_a_user").handler
    module_file.unlink()  # as pytest's importlib mode has it: it is loaded, and nobody else finds it

    def handler(params: dict[str, Any]) -> Any:
        return used(params)

    told = "handler uses 'handler', which is of the module 'tiles_of_a_user', which worker processes cannot import"
    with pytest.raises(DefinitionError, match=told):
        pack(handler)


def test_a_name_that_now_means_something_else_does_not_travel_as_that_name(module_file: Path) -> None:
    module = importlib.import_module("tiles_of_a_user")
    replaced = module.handler
    module.handler = doubled  # type: ignore[attr-defined]
    assert pack(replaced).reference is None


# By value


def local_handlers() -> dict[str, Callable[..., Any]]:
    factor, sizes = 3, {"n": 5}

    def closing(params: dict[str, int]) -> int:
        return params["n"] * factor + sizes["n"]

    def calling(params: dict[str, int]) -> int:
        return closing(params) + 1

    notebook = cell(
        "import math\nFACTOR = 10\n"
        "def helper(n): return math.floor(n * FACTOR)\n"
        "def handler(params): return helper(params['n'])\n"
    )
    return {
        "closure": closing,
        "local helper": calling,
        "notebook": notebook["handler"],
        "partial": functools.partial(notebook["handler"]),
        "partial of a module's": functools.partial(Doubler.static),
        "object": Doubler(kept=[1, 2]),
        "method of an object": Doubler(kept=[1, 2]).method,
    }


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("closure", 11),
        ("local helper", 12),
        ("notebook", 20),
        ("partial", 20),
        ("partial of a module's", {"success": True, "result": 4}),
        ("object", {"success": True, "result": 4}),
        ("method of an object", {"success": True, "result": 4}),
    ],
)
def test_what_a_worker_cannot_import_travels_as_its_bytes_and_works_there(kind: str, result: Any) -> None:
    target = local_handlers()[kind]
    assert unshippable(target) is None
    code = pack(target)
    assert code.reference is None
    assert code.value is not None
    assert unpack(code)({"n": 2}) == result
    assert elsewhere(code) == result


def test_what_travels_by_value_keeps_the_file_and_lines_of_all_its_code() -> None:
    source = (
        "def outer(params):\n    def inner(n):\n        return [1 // x for x in n]\n    return inner(params['n'])\n"
    )
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<a cell>", "exec"), namespace)
    value = pack(namespace["outer"]).value
    assert value is not None
    with pytest.raises(ZeroDivisionError) as raised:
        pickle.loads(value)({"n": [0]})
    frames = traceback.extract_tb(raised.value.__traceback__)[1:]
    assert {frame.filename for frame in frames} == {"<a cell>"}, "does cloudpickle no longer ask our reducer of code?"
    assert [frame.lineno for frame in frames][:2] == [4, 3]


def test_a_cached_helper_and_a_new_type_of_the_notebook_travel() -> None:
    source = """
import functools, typing
Metres = typing.NewType("Metres", float)
@functools.lru_cache(maxsize=7)
def helper(n): return n * 2
@functools.cache
def other(n): return n
def handler(params, unit: Metres = 1.0):
    other(1)
    return [helper(params["n"]), helper(params["n"]), helper.cache_info()[:3], Metres(unit)]
"""
    assert elsewhere(pack(cell(source)["handler"])) == [4, 4, [1, 1, 7], 1.0]


def test_a_dataclass_of_the_notebook_is_still_one_where_it_arrives() -> None:
    source = """
from dataclasses import MISSING, dataclass, field, fields
@dataclass
class Tile:
    n: int
    seen: list = field(default_factory=list)
def handler(params): return [Tile(**params).seen, [kept.default is MISSING for kept in fields(Tile)]]
"""
    assert elsewhere(pack(cell(source)["handler"])) == [[], [True, True]]


def test_the_version_of_what_travels_by_value_changes_with_its_code_and_with_what_it_holds() -> None:
    sources = ["return FACTOR", "return FACTOR + 1", "return -FACTOR"]
    versions = [pack(cell(f"FACTOR = 1\ndef handler(params): {source}")["handler"]).version for source in sources]
    held = pack(cell("FACTOR = 2\ndef handler(params): return FACTOR")["handler"]).version
    assert len({*versions, held}) == 4


@pytest.mark.parametrize(
    "source",
    [
        "import json, tiles_of_a_user\ndef handler(params): return tiles_of_a_user.handler(params), json",
        "from tiles_of_a_user import handler as other\ndef handler(params): return other(params)",
        "def handler(params):\n    import tiles_of_a_user\n    return tiles_of_a_user.handler(params)",
        "from tiles_of_a_user import Tile\ndef handler(params, tile=Tile()): pass",
        "import tiles_of_a_user\nclass handler(tiles_of_a_user.Tile): pass",
    ],
)
def test_the_version_changes_with_the_users_own_modules_that_it_depends_on(module_file: Path, source: str) -> None:
    module_file.write_text("class Tile: pass\ndef handler(params):\n    return params['n'] + 1\n")
    importlib.import_module("tiles_of_a_user")
    handler = cell(source)["handler"]
    before = pack(handler)
    assert pack(handler).version == before.version
    module_file.write_text(module_file.read_text() + "# edited\n")
    after = pack(handler)
    assert after.version != before.version
    assert [name for name, _ in before.modules] == [name for name, _ in after.modules] == ["tiles_of_a_user"]


MAIN = """
import json, pickle, sys
from geoflow.usercode.packing import pack, unshippable

OFFSET = 40

def helper(n):
    return n + OFFSET

class Base:
    job_type = "typed"

class Typed(Base):
    stages = [{"number": 1, "choose": lambda params: params}]

    @staticmethod
    def finalize_job(context):
        return {"job_type": Typed.job_type, "result": helper(context["n"])}

assert unshippable(Typed) is None
code = pack(Typed)
assert code.reference is None and code.own == ("__main__",)
sys.stdout.buffer.write(pickle.dumps(tuple(code)))
"""


def test_S1_a_job_class_of_a_script_or_notebook_travels_with_what_it_uses(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr.decode()
    code = Code(*pickle.loads(made.stdout))
    assert elsewhere(code) == {"job_type": "typed", "result": 42}
    job_class = unpack(code)
    assert job_class.__module__ == "__main__"
    assert job_class.stages[0]["choose"](7) == 7


def stray_module(name: str, path: Path | None) -> types.ModuleType:
    """A module that this process has, and that no other can import by its name."""
    source = "def handler(params):\n    return params['n'] + 1\n"
    if path is None:
        module = types.ModuleType(name)
        exec(source, vars(module))
        return module
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("listed", [True, False], ids=["in sys.modules", "not in sys.modules"])
@pytest.mark.parametrize("from_file", [True, False], ids=["from a file", "made by hand"])
def test_a_handler_of_a_module_that_workers_cannot_import_works_there_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_file: bool, listed: bool
) -> None:
    module = stray_module("stray_module_of_a_test", tmp_path / "elsewhere.py" if from_file else None)
    if listed:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    refusal = unshippable(module.handler)
    if refusal is None:
        assert elsewhere(pack(module.handler)) == 3
    else:
        assert module.__name__ in refusal


class Editable:
    """Finds a package where its sources are, as an editable install does in every process of its environment."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(fullname, self.path) if fullname == self.name else None


def test_a_handler_of_a_package_that_is_installed_to_be_edited_travels_as_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sources" / "__init__.py"
    path.parent.mkdir()
    path.write_text("def handler(params):\n    return params['n'] + 1\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable("editable_package_of_a_test", path)])
    handler = importlib.import_module("editable_package_of_a_test").handler
    try:
        assert unshippable(handler) is None
        assert pack(handler).reference == "editable_package_of_a_test:handler"
    finally:
        del sys.modules["editable_package_of_a_test"]


# Refused


def holding(kept: Any) -> dict[str, Any]:
    """Handlers that hold on to *kept* under the name ``kept``, or in a thing of that name, in every way there is."""

    def closing(params: Any) -> Any:
        return kept

    def calling(params: Any) -> Any:
        return closing(params)

    def taking(params: Any, given: Any = None) -> Any:
        return given

    @functools.wraps(doubled)
    def decorated(params: Any) -> Any:
        return doubled(params), kept

    notebook = cell(
        "def helper(): return kept\n"
        "def handler(params): return helper()\n"
        "def direct(params): return kept\n"
        "def comprehension(params): return [kept for _ in params]\n"
        "def nested(params):\n  def inner(): return kept\n  return inner()\n"
    )
    notebook["kept"] = kept
    default = cell("def handler(params, kept=kept): return kept", kept=kept)["handler"]
    inside = cell("def handler(params): return kept[0]", kept=[kept])["handler"]
    in_class = cell("class Typed:\n  @staticmethod\n  def finalize_job(context=None): return kept", kept=kept)["Typed"]
    attribute = cell("class Typed:\n  kept = kept\n  @staticmethod\n  def finalize_job(context=None): pass", kept=kept)
    return {
        "closure": closing,
        "helper's closure": calling,
        "global": notebook["direct"],
        "helper's global": notebook["handler"],
        "global in a comprehension": notebook["comprehension"],
        "global in an inner function": notebook["nested"],
        "decorator's closure": decorated,
        "default": default,
        "a list": inside,
        "argument 0": functools.partial(taking, kept),
        "partial's keyword": functools.partial(taking, given=kept),
        "partial's function": functools.partial(closing),
        "object": Doubler(kept=kept),
        "method's object": Doubler(kept=kept).method,
        "class's method": in_class,
        "class's attribute": attribute["Typed"],
    }


WAYS = list(holding(None))


def name_for(way: str) -> str:
    return {"argument 0": "argument 0", "partial's keyword": "given"}.get(way, "kept")


@pytest.mark.parametrize("mode", ["r", "w", "rb"])
@pytest.mark.parametrize("way", WAYS)
def test_S5_a_handler_that_holds_an_open_file_is_refused_and_the_file_named(
    tmp_path: Path, way: str, mode: str
) -> None:
    path = tmp_path / "tiles.txt"
    path.write_text("not to travel")
    with path.open(mode) as file:
        problem = unshippable(holding(file)[way])
    assert problem is not None, "its contents would have travelled in its place"
    assert repr(name_for(way)) in problem
    if way != "a list":
        assert problem == (
            f"uses the open file {name_for(way)!r}: pass its path in the parameters and open it inside the handler."
        )


@pytest.mark.parametrize("way", WAYS)
def test_S5_a_handler_that_holds_what_cannot_travel_is_refused_and_the_variable_named(way: str) -> None:
    problem = unshippable(holding(threading.Lock())[way])
    assert problem is not None
    kind = "list" if way == "a list" else "lock"
    assert problem == (
        f"uses {name_for(way)!r}, a {kind}, which cannot travel to a worker process: "
        "make it inside the handler, from plain values in the parameters."
    )


@pytest.mark.parametrize("way", WAYS)
def test_S5_handlers_that_hold_plain_values_in_those_ways_may_travel(way: str) -> None:
    target = holding({"size": 3})[way]
    assert unshippable(target) is None
    assert unpack(pack(target)) is not None


def test_S5_two_helpers_that_call_each_other_are_looked_through_once() -> None:
    source = (
        "def one(n): return two(n) if n else kept\ndef two(n): return one(n - 1)\ndef handler(params): return one(1)"
    )
    assert unshippable(cell(source, kept=1)["handler"]) is None
    problem = unshippable(cell(source, kept=threading.Lock())["handler"])
    assert problem is not None
    assert "'kept'" in problem


def test_S5_what_only_a_module_holds_does_not_matter_to_the_handlers_that_call_into_it(module_file: Path) -> None:
    module_file.write_text("import threading\nLOCK = threading.Lock()\ndef handler(params):\n    return params['n']\n")
    module = importlib.import_module("tiles_of_a_user")
    assert unshippable(module.handler) is None
    assert unshippable(cell("def handler(params): return tiles.handler(params)", tiles=module)["handler"]) is None


def test_S5_an_object_whose_pickling_raises_anything_is_named() -> None:
    class Stubborn:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    stubborn = Stubborn()

    def handler(params: Any) -> Any:
        return stubborn

    problem = unshippable(handler)
    assert problem is not None
    assert problem.startswith("uses 'stubborn', a Stubborn, which cannot travel")


def test_S5_a_variable_that_has_no_value_yet_is_no_reason_to_refuse() -> None:
    def handler(params: Any) -> Any:
        return later

    problem = unshippable(handler)
    later = 1
    assert problem is None
    assert handler({}) == later


def test_S5_a_file_that_a_handler_does_not_use_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Its attribute is called like a variable of the notebook; that is all they have in common."""
    with (tmp_path / "tiles.txt").open("w") as file:
        assert unshippable(cell("def handler(params): return params.kept", kept=file)["handler"]) is None


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_handler_of_a_notebook_hands_its_functions_and_classes_to_a_pool_of_its_own(
    open_session: OpenSession, how: str
) -> None:
    pools = gf.JobType("pools")

    @dataclasses.dataclass
    class Tile:
        number: int

    def squared(tile: Tile) -> Tile:
        print("squared", tile.number)
        return Tile(tile.number**2)

    @pools.stage
    def use(p) -> list[object]:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(p["how"])) as pool:
            tiles = list(pool.map(squared, [Tile(2), Tile(3)]))
            same = pool.submit(lambda tile: isinstance(tile, Tile), tiles[0]).result()
        return [same, *(tile.number for tile in tiles if type(tile) is Tile)]

    job = open_session(workers=1).run(pools, how=how)
    assert job.error is None
    (task,) = job.tasks().to_dict("records")
    assert task["result"]["result"] == [True, 4, 9]
    assert job.task(task["task_id"]).output == "squared 2\nsquared 3\n"
