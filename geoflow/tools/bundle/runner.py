"""Call the handler of a bundle's task as it was called then: ``python run.py``, in the folder of the unpacked bundle.

It needs no geoflow, unless the handler does. What the handler does is done for real.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from types import SimpleNamespace
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
MASKED = "***"


def main() -> int:
    """0 where the handler succeeds, 1 where it does not, 2 where it cannot be called."""
    with open(os.path.join(HERE, "task.json"), encoding="utf-8") as file:
        told = json.load(file)
    place, hidden = told["code"]["place"], still_hidden(told["parameters"], told["hidden"])
    if place is None:
        return refused(f"This task cannot be run elsewhere: {told['code']['why']}")
    if hidden:
        return refused(
            f"Not sent, since they look secret: the parameters {', '.join(hidden)}. Write values of yours "
            "into task.json."
        )
    sys.path.insert(0, os.path.join(HERE, "code"))
    parameters = with_inputs(told["parameters"], told["inputs"]["places"])
    try:
        handler = found(place)
        arguments = (parameters, context(told["task"], told["job"])) if told["code"]["takes_context"] else (parameters,)
        returned, error = called(handler, arguments), None
    except (Exception, SystemExit) as exc:
        returned, error = None, exc
    return tell(returned, error)


def still_hidden(value: Any, hidden: list[str], name: str = "") -> list[str]:
    """Which of the *hidden* parameters have been given no other value."""
    if name in hidden:
        return [name] if MASKED in str(value) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, item in items for each in still_hidden(item, hidden, f"{name}.{key}" if name else str(key))]


def with_inputs(value: Any, places: dict[str, str]) -> Any:
    """*value* with the paths of the files that were sent, where they are here."""
    if isinstance(value, str):
        return os.path.join(HERE, "inputs", places[value]) if value in places else value
    if isinstance(value, list):
        return [with_inputs(item, places) for item in value]
    return {key: with_inputs(item, places) for key, item in value.items()} if isinstance(value, dict) else value


def found(place: dict[str, Any]) -> Any:
    handler: Any = importlib.import_module(place["module"])
    for name in place["path"].split("."):
        handler = getattr(handler, name)
    if place["is_called"]:
        handler = handler.handlers()
    return handler if place["key"] is None else handler[place["key"]]


def context(task: dict[str, Any], job: dict[str, Any]) -> Any:
    """What a handler takes as its second argument."""
    return SimpleNamespace(
        job_id=job["job_id"],
        job_type=job["job_type"],
        stage=task["stage"],
        task_id=task["task_id"],
        task_index=task["index"],
        task_type=task["task_type"],
        attempt=max(task["attempts"], 1),
        logger=logging.getLogger(f"geoflow.task.{task['task_type']}"),
        missing=[SimpleNamespace(**each) for each in task["missing"]],
    )


def called(handler: Any, arguments: tuple[Any, ...]) -> Any:
    try:
        from geoflow.jobtypes.answers import attempted
    except ImportError:
        return handler(*arguments)
    return attempted(handler, *arguments)  # what it writes by gf.output gets its name


def tell(returned: Any, error: BaseException | None) -> int:
    """Print what came of it, or write it as JSON to the file that is named."""
    trace = ""
    if error is not None:
        frames, code = error.__traceback__, os.path.join(HERE, "code", "")
        while frames is not None and not frames.tb_frame.f_code.co_filename.startswith(code):
            frames = frames.tb_next
        frames = frames or error.__traceback__  # it was raised before the handler was reached
        trace = "".join(traceback.format_exception(type(error), error.with_traceback(frames), frames))
        trace = trace.replace(code, "")
    outcome = {
        "returned": None if error is not None else json.loads(json.dumps(returned, default=as_text)),
        "error_type": None if error is None else type(error).__name__,
        "error": None if error is None else str(error),
        "traceback": trace or None,
    }
    sys.stdout.flush()
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(outcome, file)
    elif error is not None:
        sys.stderr.write(trace)
    else:
        print("It returned:", json.dumps(outcome["returned"], indent=2))
    return 0 if isinstance(returned, dict) and returned.get("success") is True else 1


def as_text(value: Any) -> Any:
    """A value that JSON has no word for: a number of numpy's as itself, all else as text."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else str(value)


def refused(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"refused": why}, file)
    return 2


if __name__ == "__main__":
    sys.exit(main())
