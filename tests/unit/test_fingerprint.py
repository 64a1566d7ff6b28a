"""What counts as another version of a user's code, and what does not."""

from __future__ import annotations

import ast
import importlib
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.usercode.fingerprint import fingerprint
from geoflow.usercode.references import names
from geoflow.usercode.sources import definition, source_of
from tests.helpers import fingerprinted

_cells = iter(range(10_000))


def cell(source: str, space: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a notebook's cell leaves in its namespace."""
    name = f"<ipython-input-fingerprint-{next(_cells)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space = {"__name__": "__main__"} if space is None else space
    exec(compile(source, name, "exec"), space)
    return space


def of(source: str, name: str = "handler") -> str:
    return fingerprint(cell(source)[name])


HANDLER = "def handler(params):\n    return {'success': True, 'result': {'n': params['n'] + 1}}\n"


@pytest.mark.parametrize(
    "same",
    [
        "# what it does\n\n" + HANDLER,
        HANDLER.replace("):\n", "):\n    '''What it does.'''\n"),
        HANDLER.replace("):\n", "):  # params is a dict\n\n"),
        HANDLER.replace("{'success': True, 'result': ", "{\n        'success': True,\n        'result': "),
        "import functools\ndef other(): return 1\n" + HANDLER,
    ],
    ids=["comment above", "docstring", "comment inside", "layout", "something else in the cell"],
)
def test_comments_docstrings_and_layout_do_not_count(same: str) -> None:
    assert of(same) == of(HANDLER)


def test_names_of_its_own_are_not_taken_for_those_of_the_notebook() -> None:
    source = "def handler(tile):\n    size = tile.size\n    return [item for item in range(size)]"
    alone = of(source)
    for cell_before in ("size = 5", "tile = 5", "item = 5"):
        assert of(f"{cell_before}\n{source}") == alone


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HANDLER, HANDLER.replace("+ 1", "+ 2")),
        (HANDLER, HANDLER.replace("params)", "params, context)")),
        (
            "def helper(): return 1\ndef handler(p): return helper()",
            "def helper(): return 2\ndef handler(p): return helper()",
        ),
        ("LIMIT = 1\ndef handler(p): return LIMIT", "LIMIT = 2\ndef handler(p): return LIMIT"),
        ("KINDS = {'a', 'b'}\ndef handler(p): return KINDS", "KINDS = {'a', 'c'}\ndef handler(p): return KINDS"),
        ("def handler(p, by=1): return by", "def handler(p, by=2): return by"),
        (
            "class Tile:\n    def area(self): return 1\ndef handler(p): return Tile().area()",
            "class Tile:\n    def area(self): return 2\ndef handler(p): return Tile().area()",
        ),
        (
            "from pydantic import BaseModel\nclass Tile(BaseModel):\n    n: int = 1\ndef handler(p): return Tile()",
            "from pydantic import BaseModel\nclass Tile(BaseModel):\n    n: int = 2\ndef handler(p): return Tile()",
        ),
        (
            "from functools import partial\ndef f(a, p): return a\nhandler = partial(f, 1)",
            "from functools import partial\ndef f(a, p): return a\nhandler = partial(f, 2)",
        ),
        (
            "def around(f):\n    def inner(p): return f(p)\n    return inner\n@around\ndef handler(p): return 1",
            "def around(f):\n    def inner(p): return f(p)\n    return inner\n@around\ndef handler(p): return 2",
        ),
    ],
    ids=[
        *("its body", "its signature", "a helper", "a constant", "a set", "a default", "a method", "a field"),
        *("an argument of a partial", "what a decorator is around"),
    ],
)
def test_what_it_does_and_what_it_uses_counts(one: str, other: str) -> None:
    assert of(one) == of(one)
    assert of(one) != of(other)


def test_code_without_a_source_is_told_apart_too() -> None:
    def made(body: str) -> Callable[..., Any]:
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(f"def handler(p): return {body}", "<nowhere>", "exec"), space)
        return space["handler"]

    assert fingerprint(made("p in {'a', 'b'}")) == fingerprint(made("p in {'b', 'a'}"))
    assert fingerprint(made("[n + 1 for n in p]")) != fingerprint(made("[n + 2 for n in p]"))


def test_a_class_of_a_script_is_the_same_when_ipython_goes_on_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = cell("class Tile:\n    def area(self): return 1\ndef handler(p): return Tile().area()")["handler"]
    before = fingerprint(handler)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    assert fingerprint(handler) == before


def test_a_function_that_counts_in_one_around_it_is_told_apart_too() -> None:
    source = "def made():\n    n = 0\n    def handler(p):\n        nonlocal n\n        n += 1\n        return n\n"
    handler = f"{source}    return handler\nhandler = made()"
    assert of(handler) == of(handler)
    assert of(handler) != of(handler.replace("n += 1", "n += 2"))


def test_what_has_a_docstring_alone_is_as_good_as_empty() -> None:
    source = "def helper():\n    '''Nothing.'''\ndef handler(p): return helper()"
    assert of(source) == of(source.replace("'''Nothing.'''", "pass"))


def test_the_type_of_a_variable_inside_does_not_count_and_that_of_a_parameter_does() -> None:
    inside, parameter = "def handler(p):\n    tile: Tile = p\n    return tile", "def handler(tile: Tile): return tile"
    for source, counts in ((inside, False), (parameter, True)):
        one, other = (of(f"class Tile:\n    n = {n}\n{source}") for n in (1, 2))
        assert (one != other) == counts


@pytest.mark.parametrize("how", ["COUNT += 1", "p[COUNT] += 1", "return [COUNT for _ in p]", "return lambda: COUNT"])
def test_a_global_counts_wherever_it_is_used(how: str) -> None:
    source = f"def handler(p):\n    global COUNT\n    {how}"
    assert of(f"COUNT = 1\n{source}") == of(f"COUNT = 1\n{source}")
    assert of(f"COUNT = 1\n{source}") != of(f"COUNT = 2\n{source}")


def test_lambdas_of_one_cell_are_told_apart() -> None:
    for layout in ("handler, other = lambda p: {0}, lambda p: {1}", "other = lambda p: {1}\nhandler = lambda p: {0}"):
        assert of(layout.format(1, 2)) == of(layout.format(1, 2))
        assert of(layout.format(1, 2)) != of(layout.format(3, 2))
    assert of("other = lambda p: 2\nhandler = lambda p: 1") == of("handler = lambda p: 1")


def test_texts_of_any_characters_inside_others_can_be_read() -> None:
    source = "K = 1\ndef handler(p): return f'''{p['a\N{NO-BREAK SPACE}b']}''' * K"
    assert of(source) == of(source)
    assert len({of(source), of(source.replace("K = 1", "K = 2")), of(source.replace("['a", "['c"))}) == 3


def test_a_block_of_code_in_a_document_counts_as_one_in_a_cell_does(tmp_path: Path) -> None:
    document = tmp_path / "guide.md"
    document.write_text(f"# Not Python: it's prose\n\n```python\n{HANDLER}```\n\nand (more of it\n")
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n" * 3 + HANDLER, str(document), "exec"), space)
    assert source_of(space["handler"]) == HANDLER
    assert fingerprint(space["handler"]) == of(HANDLER)


def test_functions_that_call_each_other_end() -> None:
    source = "def even(p): return p == 0 or odd(p - 1)\ndef odd(p): return p > 0 and even(p - 1)\nhandler = even"
    assert of(source) == of(source)


MODULE = """
import os
import {name}_more
LIMIT = 1
def helper(): return LIMIT
def first(params): return helper()
def second(params): return {name}_more.far(), os.sep
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"fingerprinted_{next(_cells)}"
    (tmp_path / f"{name}_more.py").write_text("def far(): return 1\n")
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    yield importlib.import_module(name)
    for loaded in (name, f"{name}_more"):
        sys.modules.pop(loaded, None)


def test_of_a_file_only_the_functions_that_use_what_changed_are_other_ones(module: Any) -> None:
    path = Path(module.__file__)
    before = fingerprint(module.first), fingerprint(module.second)
    path.write_text("# new\n" + path.read_text().replace("LIMIT = 1", "LIMIT = 20"))
    after = fingerprint(module.first), fingerprint(module.second)
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)
    more = path.with_name(f"{path.stem}_more.py")
    more.write_text("def far(): return 2 * 1\n")
    assert (fingerprint(module.first), fingerprint(module.second) != after[1]) == (after[0], True)


def test_a_function_in_a_branch_of_a_file_stays_the_same_when_its_lines_move(module: Any) -> None:
    path = Path(module.__file__)
    path.write_text(path.read_text() + "if os.sep:\n    def third(params): return LIMIT\n")
    third = importlib.reload(module).third
    before = fingerprint(third)
    path.write_text("# new\n" + path.read_text())
    assert fingerprint(third) == before
    path.write_text(path.read_text().replace("LIMIT\n", "LIMIT + 1\n"))
    assert fingerprint(third) != before


def test_modules_that_import_each_other_end(module: Any) -> None:
    path = Path(module.__file__)
    more = path.with_name(f"{path.stem}_more.py")
    more.write_text(f"import {path.stem}\ndef far(): return 1\n")
    path.write_text(f"import {more.stem}\ndef first(p): return {more.stem}.{path.stem}.{more.stem}.far()\n")
    importlib.reload(module)
    importlib.reload(sys.modules[more.stem])
    before = fingerprint(module.first)
    more.write_text(more.read_text().replace("return 1", "return 20"))
    assert fingerprint(module.first) != before


def test_another_process_finds_the_same(module: Any) -> None:
    asked = (
        f"import sys; sys.path.insert(0, {str(Path(module.__file__).parent)!r}); import {module.__name__} as module\n"
    )
    asked += "from geoflow.usercode.fingerprint import fingerprint; print(fingerprint(module.second))"
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", asked], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == fingerprint(module.second)


def test_of_a_job_type_the_code_and_the_types_of_a_stage_count_and_its_options_do_not() -> None:
    source = """
import geoflow as gf
from pydantic import BaseModel
class Item(BaseModel):
    n: int = 1
t = gf.JobType("fingerprinted")
@t.stage
def scan() -> list[Item]:
    return [Item()]
@t.each(scan, retries=2)
def stat(item: Item) -> int:
    return item.n
"""

    def versions(text: str) -> list[str]:
        t: gf.JobType = cell(text)["t"]
        return [fingerprint(handler) for handler in t.handlers().values()]

    before = versions(source)
    assert versions(source) == before
    assert versions(source.replace("retries=2", "retries=3, timeout=5")) == before
    scan, stat = versions(source.replace("item.n\n", "item.n * 2\n"))
    assert (scan == before[0], stat == before[1]) == (True, False)
    scan, stat = versions(source.replace("n: int = 1", "n: int = 2"))
    assert (scan == before[0], stat == before[1]) == (False, False)


@pytest.mark.parametrize(
    ("source", "at_once", "later"),
    [
        ("def f(p): return [[h for h in p], [h(x) for x in p]]", set(), {"h"}),
        ("def f(p):\n  global K\n  return {K: x for x in p}", set(), {"K"}),
        ("def f(p):\n  class C:\n    K = 1\n    t = {K for x in p}\n  return C", set(), {"K"}),
        ("class C:\n  K = 1\n  t = [K for x in range(3)]", {"K", "range"}, set()),
        ("def f(p, d=[K for x in q]): return d", {"K", "q"}, set()),
    ],
)
def test_names_in_comprehensions_are_found_alike_on_every_python(
    source: str, at_once: set[str], later: set[str]
) -> None:
    # Python 3.12 makes a comprehension a part of what is around it, where another's name hides that of a helper.
    assert tuple(map(set, names(source))) == (at_once, later)


@pytest.mark.parametrize("name", fingerprinted.BEFORE)
def test_code_that_is_as_it_was_has_the_fingerprint_that_an_earlier_geoflow_gave_it(name: str) -> None:
    assert fingerprint(fingerprinted.ALL[name]) == fingerprinted.BEFORE[name]


def test_a_definition_is_found_in_whatever_statement_it_stands_and_the_last_of_a_name_counts(tmp_path: Path) -> None:
    compound = ["if x:", "else:", "for x in y:", "else:", "while x:", "else:", "with x:"]
    compound += ["try:", "except OSError:", "else:", "finally:", "match x:\n  case 1:"]
    text = "".join(f"{head}\n   def f{n}(): pass\n   def last(): {n}\n" for n, head in enumerate(compound))
    (tmp_path / "made.py").write_text(f"{text}class C:\n if x:\n  async def inner(self): (lambda: 1)\n")
    for n in range(len(compound)):
        assert definition(str(tmp_path / "made.py"), f"f{n}") is not None, compound[n]
    last = definition(str(tmp_path / "made.py"), "last")
    assert last is not None
    assert ast.unparse(last).endswith(str(len(compound) - 1))
    assert definition(str(tmp_path / "made.py"), "C.inner") is not None
    assert definition(str(tmp_path / "made.py"), "inner") is None
