"""A job type while it is tried: its methods and handlers called, what is found told, and errors put into words."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from geoflow.core.models import Stage, TaskResult
from geoflow.errors import UnstorableValue
from geoflow.jobtypes.contract import METHODS
from geoflow.jobtypes.typed.crossing import problems_of
from geoflow.support.jsonable import from_json, stored, to_json
from geoflow.support.text import exact, shorten
from geoflow.tools.check.outside import watching
from geoflow.tools.check.values import changes
from geoflow.usercode.origin import is_users

VALIDATE, IDENTIFY, PLAN, FINALIZE = METHODS
_CLOCKS = {"now", "utcnow", "time", "strftime", "ctime", "asctime"}
# What may be so for want of parameters alone.
_OF_PARAMETERS = {"GF301", "GF326", "GF328", "GF331", "GF332", "GF340", "GF902"}


class Stop(Exception):
    """What comes next cannot be tried."""


class Trial:
    """What is known so far: the tasks *done*, the *ids* planned, and whether all planned were run (*whole*).

    The parameters *are_given* by the user, or *are_guessed* to be none; or neither, where the job type tells them.
    """

    def __init__(
        self, job_class: Any, handlers: dict[str, Any], asked: dict[str, Any], say: Callable[..., None]
    ) -> None:
        self.job, self.handlers, self.asked, self.say = job_class, handlers, asked, say
        self.stages = [Stage(**stage) for stage in asked["stages"]]
        self.at = ["class", ""]
        self.told: set[tuple[str, str]] = set()
        self.whole = True
        self.are_given, self.are_guessed = asked["are_given"], asked["are_guessed"]
        self.ids: set[str] = set()
        self.done: list[TaskResult] = []

    def tell(self, code: str, what: str, exc: BaseException | None = None, place: Any = None) -> None:
        """One finding, once for each method or handler; at the user's line that raised *exc*, where there is one.

        Whatever *code* says, what no data would mend is told as that, and what parameters might mend that nobody knows
        as them being unknown.
        """
        if is_mistake(exc):
            code = "GF333"
        elif self.are_guessed and code in _OF_PARAMETERS:
            code, what = "GF901", f"Its parameters are not known. With none: {what}"
        if (code, self.at[1]) not in self.told:
            self.told.add((code, self.at[1]))
            self.say(code=code, what=what, at=self.at, place=place or place_of(exc))

    def stop(self, code: str, what: str, exc: BaseException | None = None) -> Stop:
        """To be raised: what is told keeps the trial from going on."""
        self.tell(code, what, exc)
        return Stop()

    def call(self, name: str, *arguments: Any) -> Any:
        """What the method or the handler *name* returns."""
        is_handler = name in self.handlers
        self.at = ["handler" if is_handler else "method", name]
        self.say(doing=self.at)
        return (self.handlers[name] if is_handler else getattr(self.job, name))(*arguments)

    def watched(self, who: str, name: str, *arguments: Any) -> tuple[Any, Exception | None]:
        """What a method returns, or raises; what it touches is told as the doing of *who*."""
        made, problem = None, None
        with watching() as touched:
            try:
                made = self.call(name, *arguments)
            except Exception as exc:
                problem = exc
        for what, reads, place in touched:
            self.tell("GF310" if reads and name == VALIDATE else "GF311", f"{who} {what}.", place=place)
        return made, problem

    def as_json(self, value: Any, where: str) -> Any:
        """*value* as JSON has it, telling what that changes; ``Stop`` where it has no such form."""
        kind, name = self.at
        who = f"The handler of {name!r}" if kind == "handler" else name
        try:
            text = (stored if where == "parameters" else to_json)(value, where=where)
        except UnstorableValue as exc:
            raise self.stop("GF308", f"{who}: {exc}") from None
        changed = list(changes(value, where))
        for code in ("GF307", "GF309"):
            if lost := [what for its, what in changed if its == code]:
                self.tell(code, f"{who}: {'; '.join(lost[:3])}.")
        return from_json(text)

    def let_clocks_go_on(self, method: str) -> None:
        """Wait until a clock that counts in seconds shows another time, where *method* asks one."""
        code = getattr(getattr(self.job, method), "__code__", None)
        if code is not None and _CLOCKS & set(code.co_names):
            time.sleep(1.05)


def short(exc: BaseException) -> str:
    """Its text, in a line."""
    if isinstance(exc, ValidationError):
        return shorten("; ".join(line.removeprefix("  - ") for line in problems_of(exc).splitlines()), 200)
    return shorten(exact(exc), 200)


def named(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {short(exc)}".removesuffix(": ")


def is_mistake(exc: BaseException | None) -> bool:
    """Whether *exc* is about the code, so that no data would mend it: a name, a module or a syntax that is not there.

    Names that come with data, as those of an expression that is evaluated, do not count, nor does a variable that has
    no value yet.
    """
    if type(exc) in (ImportError, ModuleNotFoundError):
        return True
    if type(exc) in (SyntaxError, IndentationError, TabError):
        return not (getattr(exc, "filename", None) or "<").startswith("<")
    is_module = isinstance(exc, AttributeError) and isinstance(exc.obj, ModuleType)
    if exc is None or not (is_module or (type(exc) is NameError and "free variable" not in str(exc))):
        return False
    codes = [frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__)]
    return any(getattr(exc, "name", None) in code.co_names and code.co_filename != "<string>" for code in codes)


def place_of(exc: BaseException | None) -> tuple[str, int | None] | None:
    """The last line of the user's own that *exc* went through."""
    frames = traceback.extract_tb(exc.__traceback__) if exc is not None else []
    return next(((frame.filename, frame.lineno) for frame in reversed(frames) if is_users(frame.filename)), None)
