"""How geoflow is built, from its imports: circles, upward imports, floors, private reach-ins, lines of each room.

    python tools/structure.py             the figures
    python tools/structure.py --table     docs/design.md gets its table of modules, from their docstrings, anew
    python tools/structure.py --check     status 1 where the table is old, or a figure is worse than what is allowed

Annotations count as imports. Which floor a room is on is read from import-linter's layers in pyproject.toml.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "geoflow"
DESIGN = ROOT / "docs" / "design.md"
BEGINS, ENDS = "<!-- modules: python tools/structure.py --table -->", "<!-- end of modules -->"
MOST_REACH_INS = 10
# What named tuples call public though it begins with an underscore.
OF_TUPLES = {"_replace", "_asdict", "_fields", "_make"}


class Module(NamedTuple):
    """One file of the package; ``name`` is without ``geoflow.``, and empty for the package itself."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        return self.name.partition(".")[0] or "__init__"

    @property
    def about(self) -> str:
        """The first sentence of its docstring."""
        text = " ".join((ast.get_docstring(self.tree) or "").partition("\n\n")[0].split())
        return re.split(r"(?<=[.!?]) (?=[A-Z%`])", text)[0].rstrip(".")


class ReachIn(NamedTuple):
    """A private name of another room's that a module uses."""

    module: str
    line: int
    text: str


def modules(package: Path = PACKAGE) -> dict[str, Module]:
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        text = path.read_text("utf-8")
        found[name] = Module(name, path, ast.parse(text), text.count("\n"))
    return found


def imports(module: Module, known: dict[str, Module]) -> set[str]:
    """The modules of the package that it imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner.removeprefix("geoflow.") in known else node.module)
    return {name.removeprefix("geoflow.") for name in found if name.startswith("geoflow.")} & known.keys()


def floors() -> list[list[str]]:
    """The rooms of each floor, from the roof down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [re.findall(r"[\w.]+", layer) for layer in layers]


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, if there is any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as exc:
        return list(map(str, exc.args[1]))
    return []


def upward(arrows: dict[str, set[str]], known: dict[str, Module]) -> list[str]:
    """Imports of a room from a floor that is not below its own."""
    floor = {room: number for number, rooms in enumerate(floors()) for room in rooms}
    return [
        f"{name} -> {target}"
        for name, targets in sorted(arrows.items())
        for target in sorted(targets)
        if known[name].room != known[target].room
        and name
        and floor.get(known[target].room, -1) <= floor.get(known[name].room, -1)
    ]


def reach_ins(known: dict[str, Module]) -> list[ReachIn]:
    rooms_of: dict[str, set[str]] = defaultdict(set)
    for module in known.values():
        for name in _private_names(module.tree):
            rooms_of[name].add(module.room)
    found = []
    for module in known.values():
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Attribute)
                and re.match(r"_[a-zA-Z]", node.attr)
                and node.attr not in OF_TUPLES
                and rooms_of.get(node.attr)
                and module.room not in rooms_of[node.attr]
            ):
                found.append(ReachIn(module.name, node.lineno, ast.unparse(node)))
    return found


def _private_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def functions(known: dict[str, Module]) -> Iterator[tuple[int, str]]:
    for module in known.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{module.name}.{node.name}"


def drawing() -> list[str]:
    """The floors: a room may import only what stands below it."""
    rows = ["   ".join(rooms) for rooms in floors()]
    width = max(map(len, rows)) + 2
    edge = f"+{'-' * width}+"
    return ["```", edge, *(f"| {row:<{width - 2}} |\n{edge}" for row in rows), "```"]


def table(known: dict[str, Module]) -> str:
    """Markdown: the floors, then each room, from the roof down, with its modules and what these say of themselves."""
    order = {room: number for number, rooms in enumerate(floors()) for room in rooms}
    rooms: dict[str, list[Module]] = defaultdict(list)
    for module in known.values():
        if module.name:
            rooms[module.room].append(module)
    lines = [*drawing(), "", "| module | what it is for |", "|---|---|"]
    for room in sorted(rooms, key=lambda room: order.get(room, -1)):
        for module in rooms[room]:
            name = f"**{module.name}**" if module.name == room else module.name
            lines.append(f"| {name} | {module.about.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def with_table(text: str, made: str) -> str:
    before, _, rest = text.partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    return f"{before}{BEGINS}\n\n{made}\n\n{ENDS}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    known = modules()
    text = DESIGN.read_text("utf-8")
    wanted = with_table(text, table(known))
    if asked.table:
        DESIGN.write_text(wanted, "utf-8")
    arrows = {name: imports(module, known) for name, module in known.items()}
    circle, up, private = circles(arrows), upward(arrows, known), reach_ins(known)
    lines: Counter[str] = Counter()
    for module in known.values():
        lines[module.room] += module.lines
    print(f"{len(known)} modules, {sum(map(len, arrows.values()))} imports, {len(floors())} floors")
    print(f"circles: {' -> '.join(circle) or 'none'}")
    print(f"upward imports: {len(up)}", *up, sep="\n  ")
    print(
        f"private reach-ins across rooms: {len(private)}",
        *(f"{p.module}:{p.line} {p.text}" for p in private),
        sep="\n  ",
    )
    print(f"lines: {lines.total()}:", ", ".join(f"{room} {count}" for room, count in lines.most_common()))
    print(
        "longest modules:", ", ".join(f"{m.name} {m.lines}" for m in sorted(known.values(), key=lambda m: -m.lines)[:6])
    )
    print(
        "longest functions:", ", ".join(f"{name} {count}" for count, name in sorted(functions(known), reverse=True)[:4])
    )
    if not asked.check:
        return 0
    is_old = wanted != text and not asked.table
    if is_old:
        print("docs/design.md has an old table of modules: python tools/structure.py --table", file=sys.stderr)
    return int(is_old or bool(circle) or bool(up) or len(private) >= MOST_REACH_INS)


if __name__ == "__main__":
    sys.exit(main())
