"""Call an exported module as production would: ``proof_child.py ASKED OUTCOME``, in a process that has no geoflow.

ASKED says in JSON which module, where its imports are, and calls that were recorded. What differs goes to OUTCOME.
"""

import contextlib
import importlib
import json
import sys
import traceback
from collections import Counter
from types import SimpleNamespace
from typing import Any


def context_of(about: dict[str, Any]) -> SimpleNamespace:
    """What finalize is given."""
    tasks = [SimpleNamespace(**task) for task in about["task_results"]]
    return SimpleNamespace(**{**about, "task_results": tasks})


def difference(was: Any, made: Any) -> str:
    """The first place where two values differ."""
    if isinstance(was, dict) and isinstance(made, dict):
        for key in {**was, **made}:
            if key not in made or key not in was or was[key] != made[key]:
                return f"[{key!r}]{difference(was.get(key), made.get(key))}"
    if isinstance(was, list) and isinstance(made, list):
        for place, (before, now) in enumerate(zip(was, made, strict=False)):
            if before != now:
                return f"[{place}]{difference(before, now)}"
        return f": was {len(was)} items, is {len(made)}"
    return f": was {json.dumps(was)[:200]}, is {json.dumps(made)[:200]}"


def _unplaced(value: Any) -> Any:
    """*value* without the places of files that were saved: what is in them is told by their hashes."""
    if isinstance(value, dict):
        left_out = {"path"} if "gf_saved" in value else set()
        return {key: _unplaced(item) for key, item in value.items() if key not in left_out}
    return [_unplaced(item) for item in value] if isinstance(value, list) else value


def compare(asked: dict[str, Any], same: Counter[str], different: list[str]) -> None:
    sys.modules.pop(asked["name"], None)  # one of this program's may be called so
    module = importlib.import_module(asked["name"])
    job = module.ALL_JOBS[asked["name"]]
    for kind, what, name, arguments, was in asked["calls"]:
        function = module.ALL_HANDLERS[name] if kind == "results" else getattr(job, name)
        try:
            made = json.loads(json.dumps(function(*map(context_of, arguments) if kind == "finalize" else arguments)))
        except Exception as exc:
            last = traceback.extract_tb(exc.__traceback__)[-1]
            different.append(f"{what} raises {type(exc).__name__}: {exc} ({last.name}, line {last.lineno})")
        else:
            if _unplaced(made) == _unplaced(was):
                same[kind] += len(made) if kind == "task ids" else 1
            else:
                different.append(f"{what} {difference(_unplaced(was), _unplaced(made))}")


def main(asked_path: str, outcome_path: str) -> None:
    with open(asked_path, encoding="utf-8") as file:
        asked = json.load(file)
    sys.modules["geoflow"] = None  # type: ignore[assignment]
    sys.path[:] = asked["sys_path"]
    same: Counter[str] = Counter()
    different: list[str] = []
    with contextlib.redirect_stdout(sys.stderr):
        try:
            compare(asked, same, different)
        except Exception as exc:
            different.append("it cannot be used: " + "".join(traceback.format_exception(exc, limit=-2)))
    with open(outcome_path, "w", encoding="utf-8") as file:
        json.dump({"same": same, "different": different}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
