"""A job type while it is tried: its methods and handlers called, what is found told, and errors put into words."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from geoflow.checks.crossing import changes
from geoflow.checks.outside import Touched
from geoflow.checks.source import is_ours
from geoflow.errors import UnstorableValue
from geoflow.models import TaskResult
from geoflow.notebook.tracebacks import LIBRARY
from geoflow.text import exact, shorten
from geoflow.values import from_json, to_json

_CLOCKS = {"now", "utcnow", "time", "strftime", "ctime", "asctime"}


class Stop(Exception):
    """What comes next cannot be tried."""


class Trial:
    """What is known so far: the tasks *done*, the *ids* planned, and whether all planned were run (*whole*)."""

    def __init__(
        self, job_class: Any, handlers: dict[str, Any], asked: dict[str, Any], say: Callable[..., None]
    ) -> None:
        self.job, self.handlers, self.asked, self.say = job_class, handlers, asked, say
        self.stages: list[dict[str, Any]] = asked["stages"]
        self.at = ["class", ""]
        self.told: set[tuple[str, str]] = set()
        self.whole = True
        self.raw: dict[str, Any] = {}  # the parameters as validate returned them, before JSON
        self.ids: set[str] = set()
        self.done: list[TaskResult] = []

    def tell(self, code: str, what: str, exc: BaseException | None = None, place: list[Any] | None = None) -> None:
        """One finding, once for each method or handler; at the user's line that raised *exc*, where there is one."""
        if (code, self.at[1]) not in self.told:
            self.told.add((code, self.at[1]))
            self.say(code=code, what=what, at=self.at, place=place or place_of(exc))

    def tell_touched(self, code: str, who: str, one: Touched) -> None:
        self.tell(code, f"{who} {one.what}.", place=[one.file, one.line] if one.file else None)

    def call(self, kind: str, name: str, *arguments: Any) -> Any:
        self.at = [kind, name]
        self.say(doing=self.at)
        return (self.handlers[name] if kind == "handler" else getattr(self.job, name))(*arguments)

    def as_json(self, value: Any, where: str) -> Any:
        """*value* as JSON has it, telling what that changes; ``Stop`` where it has no such form."""
        try:
            text = to_json(value, where=where)
        except UnstorableValue as exc:
            self.tell("GF308", f"{self.who()}: {exc}")
            raise Stop from None
        hard, tuples = changes(value, where)
        if hard:
            self.tell("GF307", f"{self.who()}: {'; '.join(hard)}.")
        if tuples:
            self.tell("GF309", f"{self.who()}: {'; '.join(tuples)}.")
        return from_json(text)

    def who(self) -> str:
        """What was called last, in words."""
        kind, name = self.at
        return f"The handler of {name!r}" if kind == "handler" else name

    def let_clocks_go_on(self, method: str) -> None:
        """Wait until a clock that counts in seconds shows another time, where *method* asks one."""
        code = getattr(getattr(self.job, method), "__code__", None)
        if code is not None and _CLOCKS & set(code.co_names):
            time.sleep(1.05)


# Errors and values in words


def missing(key: Any, keys: list[str]) -> str:
    there = ", ".join(map(repr, keys[:10])) or "none"
    return f"{key!r} of a dict whose keys are {there}."


def short(exc: BaseException) -> str:
    if isinstance(exc, ValidationError):
        problems = [(".".join(map(str, one["loc"])), one["msg"]) for one in exc.errors(include_url=False)]
        return shorten("; ".join(": ".join(filter(None, problem)) for problem in problems), 200)
    return shorten(exact(exc), 200)


def named(exc: BaseException) -> str:
    text = short(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def shown(value: Any) -> str:
    try:
        return f"{type(value).__name__}: {shorten(exact(repr(value)), 100)}" if value is not None else "None"
    except Exception:  # a repr may raise anything
        return type(value).__name__


def place_of(exc: BaseException | None) -> list[Any] | None:
    """The last line of the user's own that *exc* went through."""
    frames = traceback.extract_tb(exc.__traceback__) if exc is not None else []
    own = [frame for frame in frames if not LIBRARY.search(frame.filename) and not is_ours(frame.filename)]
    return [own[-1].filename, own[-1].lineno] if own else None
