"""The code of a handler as text that runs elsewhere: the user's own modules, or one that is made of a notebook."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name
from typing import Any, NamedTuple

from geoflow.jobtypes.contract import Handler, Registered
from geoflow.jobtypes.typed import TypedJob
from geoflow.jobtypes.typed.jobtype import made_anew
from geoflow.support.masking import MASKED, looks_secret, mask_text
from geoflow.tools.export.bindings import scope_of
from geoflow.tools.export.gather import Gathered
from geoflow.tools.export.writing import statements
from geoflow.tools.importable import Place, place_of
from geoflow.usercode.origin import PACKAGE, is_users
from geoflow.usercode.references import innermost
from geoflow.usercode.sources import parsed, text_in

TOGETHER = "handlers_of_notebook"  # the module that is made of what is in no file
_BUILT_IN = "geoflow.builtin."


class Code(NamedTuple):
    """*files* by their names, with their texts; the *place* of the handler in these, else *why* it cannot be run.

    *hidden* says which values look secret, and are not in the texts.
    """

    files: Mapping[str, str]
    place: Place | None = None
    why: str | None = None
    hidden: Sequence[str] = ()


def code_of(handler: Handler, registered: Registered, task_type: str, secrets: tuple[str, ...]) -> Code:
    """What the *handler* of *task_type* needs of the user's code."""
    place, texts, modules = place_of(handler, registered, task_type), dict[str, str](), list[str]()
    if place is not None and place.module.startswith(_BUILT_IN):
        return Code({}, place)
    if place is not None:
        modules = [place.module]
        if not _is_carried(place.module):
            what = f"{place.module} is installed, and a bundle has no installed packages"
            return Code({}, why=f"{what}: install it there too, and give a test of the task (task.to_pytest) instead.")
    else:
        try:
            gathered, text, place = _together(handler, registered, task_type)
        except Exception as exc:  # whatever a definition does as it is looked at: it is only not to be run elsewhere
            return Code({}, why=f"its code could not be put together as text: {type(exc).__name__}: {exc}")
        if gathered.problems:
            return Code({}, why="its code cannot be put together as text. " + " ".join(gathered.problems))
        texts, modules = {f"{TOGETHER}.py": text}, list(gathered.files)
    texts |= dict(_carried(modules))
    found = {name: hide(text, name, secrets) for name, text in texts.items()}
    hidden = [what for _, told in found.values() for what in told]
    return Code({name: text for name, (text, _) in found.items()}, place, hidden=hidden)


def _together(handler: Handler, registered: Registered, task_type: str) -> tuple[Gathered, str, Place]:
    """One module of what is in a notebook, or in the script that was started."""
    if isinstance(registered.maker, TypedJob):
        return _typed(registered.maker, task_type)
    function = innermost(handler)
    name = str(getattr(function, "__name__", task_type))
    gathered = Gathered({"__main__", str(getattr(function, "__module__", "__main__"))}, with_geoflow=True)
    if function is not handler:
        gathered.problem(f"{name} is registered as a partial: register a function that calls it.")
    else:
        gathered.take(name, {**scope_of(function, {}), name: function}, task_type)
    return gathered, _text(gathered), Place(TOGETHER, name)


def _typed(maker: TypedJob, task_type: str) -> tuple[Gathered, str, Place]:
    """A `gf.JobType` with its stages, as they are written."""
    made: Any = made_anew(maker)[0]
    functions = [inspect.unwrap(step.function) for step in made.flow_steps]
    gathered = Gathered({maker.__module__, "__main__"}, with_geoflow=True)
    scopes = [scope_of(function, {}) for function in functions]
    name = next((name for scope in scopes for name, value in scope.items() if value is maker), None)
    if name is None:
        gathered.problem("its gf.JobType is no variable: give it a name.")
    for function, scope in zip(functions, scopes, strict=True):
        gathered.take(function.__name__, {**scope, function.__name__: function}, maker.name)
    return gathered, _text(gathered), Place(TOGETHER, str(name), task_type, is_called=True)


def _text(gathered: Gathered) -> str:
    parts = [statements(gathered.imports), "\n".join(gathered.values.values()), *gathered.code.values()]
    return "\n\n\n".join(filter(None, parts)) + "\n"


def _is_carried(module: str) -> bool:
    path = getattr(sys.modules.get(module), "__file__", None)
    return path is not None and path.endswith(".py") and is_users(path) and not path.startswith(PACKAGE)


def _carried(modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The user's files of these modules, of the packages that they are in, and of all that these import."""
    ahead, seen = list(modules), set[str]()
    while ahead:
        module = ahead.pop(0)
        if module in seen:
            continue
        seen.add(module)
        parent = module.rpartition(".")[0]
        ahead += [parent] * bool(parent)
        path = _file_of(module)
        if path is None:
            continue
        is_package = path.endswith("__init__.py")
        text = text_in(path)
        yield module.replace(".", "/") + ("/__init__.py" if is_package else ".py"), text
        ahead += _imported(text, module if is_package else parent)


def _file_of(module: str) -> str | None:
    """The user's file of *module*, also where it is not imported by now; nothing is imported for it."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        path = getattr(loaded, "__file__", None)
    else:
        parent = module.rpartition(".")[0]
        places = getattr(sys.modules.get(parent), "__path__", None) if parent else None
        spec: ModuleSpec | None = PathFinder.find_spec(module, places) if places is not None or not parent else None
        path = spec.origin if spec else None
    is_text = path is not None and path.endswith(".py") and is_users(path) and not path.startswith(PACKAGE)
    return path if is_text else None


def _imported(text: str, package: str) -> Iterator[str]:
    """The modules that *text* may import."""
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            except ImportError:  # it leads out of its package
                continue
            if origin:
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")


# Secrets


def hide(text: str, name: str, secrets: tuple[str, ...]) -> tuple[str, list[str]]:
    """*text* of the file *name* with ``***`` for what looks secret in it, and which values these are.

    Only texts between quotes and comments are changed, so that the rest is as it was: ``token = read()`` is code.
    """
    lines, told = text.splitlines(keepends=True), list[str]()
    edits: dict[tuple[int, int], tuple[int, int, str]] = {}
    for what, node, docs in _texts(parsed(text)):
        hidden = _hidden(what, node, secrets)
        if hidden is not None and node.end_lineno is not None and node.end_col_offset is not None:
            edits[node.lineno, node.col_offset] = (node.end_lineno, node.end_col_offset, repr(hidden))
            told += [f"{what or 'a text'} in line {node.lineno:,} of {name}"] * (not docs)
    raw = [line.encode() for line in lines]
    for (line, column), (end_line, end_column, new) in sorted(edits.items(), reverse=True):
        first, last = raw[line - 1], raw[end_line - 1]
        raw[line - 1 : end_line] = [first[:column] + new.encode() + last[end_column:]]
    return _without_comments("".join(line.decode() for line in raw), secrets), told


def _hidden(name: str, node: ast.Constant | ast.JoinedStr, secrets: tuple[str, ...]) -> str | bytes | None:
    """What is to stand for a text, where it holds what looks secret."""
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant)]
        is_secret = looks_secret(name, secrets) or any(mask_text(part, secrets) != part for part in parts)
        return MASKED if is_secret else None
    if isinstance(node.value, bytes):
        return MASKED.encode() if node.value and looks_secret(name, secrets) else None
    value = str(node.value)
    shown = MASKED if value and looks_secret(name, secrets) else mask_text(value, secrets)
    return None if shown == value else shown


def _texts(tree: ast.AST) -> Iterator[tuple[str, ast.Constant | ast.JoinedStr, bool]]:
    """The texts in *tree*, each once, with the name that its value has where it is given one; and whether it is a
    statement of its own, which says something and does nothing."""
    names = dict[int, str]()
    for node in ast.walk(tree):
        pairs: list[tuple[str, ast.expr | None]] = []
        match node:
            case ast.Assign(targets, value):
                pairs = [(_name(target), value) for target in targets]
            case ast.AnnAssign(target, _, value):
                pairs = [(_name(target), value)]
            case ast.NamedExpr(target, value):
                pairs = [(_name(target), value)]
            case ast.keyword(arg, value):
                pairs = [(arg or "", value)]
            case ast.Dict(keys, values):
                pairs = [(str(getattr(key, "value", "")), value) for key, value in zip(keys, values, strict=True)]
            case ast.arguments():
                given = [*node.posonlyargs, *node.args]
                pairs = [(a.arg, v) for a, v in zip(reversed(given), reversed(node.defaults), strict=False)]
                pairs += [(a.arg, v) for a, v in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        names |= {id(value): name for name, value in pairs if value is not None}
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = set[
        int
    ]()  # where these stand cannot be told before Python 3.12: the whole text is hidden with one of them
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in inside:
            parts = {id(part): part for part in ast.walk(node) if part is not node}
            inside |= parts.keys()
            values = [part for part in parts.values() if isinstance(part, ast.Constant) and part.value]
            yield next((names[id(part)] for part in values if id(part) in names), ""), node, id(node) in said
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in inside:
            yield names.get(id(node), ""), node, id(node) in said


def _name(target: ast.expr) -> str:
    match target:
        case ast.Name(name) | ast.Attribute(_, name):
            return name
        case ast.Subscript(_, ast.Constant(name)):
            return str(name)
    return ""


def _without_comments(text: str, secrets: tuple[str, ...]) -> str:
    """*text* with what looks secret in its comments hidden."""
    lines = text.splitlines(keepends=True)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and (shown := mask_text(token.string, secrets)) != token.string:
                line, column = token.start
                lines[line - 1] = lines[line - 1][:column] + shown + lines[line - 1][token.end[1] :]
    except (tokenize.TokenError, SyntaxError):  # it is no Python, and is shown as text
        return mask_text(text, secrets)
    return "".join(lines)
