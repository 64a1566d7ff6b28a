"""A form for a job type's parameters: made from its schema, checked as one types, submitted by a click.

The schema only chooses the controls. What is allowed is for the job type alone to say: each change passes through its
own ``validate_job_parameters``, and its words stand at the field that they are about.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from geoflow.core.models import Receipt
from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError
from geoflow.jobtypes.contract import DefinesJob, Registered
from geoflow.jobtypes.parameters import validated
from geoflow.jobtypes.schema import LEFT_OUT, Field, fields_of, schema_of
from geoflow.notebook import progress
from geoflow.notebook.inputs import Input, problem_html, widgets
from geoflow.notebook.outputs import detached
from geoflow.render.markup import Html, element, head
from geoflow.support.ipython import shell
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.masking import looks_secret, mask, mask_text

_Job = TypeVar("_Job")

# For a job type that says nothing of its parameters.
WHOLE = Field("parameters", "json", "parameters", "all of them, as one JSON object", default={})


class Form(Generic[_Job]):
    """The form of a job type, for a notebook to show.

    ``inputs`` are its controls by parameter; ``parameters`` is what they say, and ``problems`` what is wrong with that,
    by parameter, and under ``""`` what is about no single one. ``job`` is what was submitted last, as *handle* makes it
    of a receipt.
    """

    def __init__(
        self,
        runtime: Runtime,
        job_type: str | type | DefinesJob,
        values: Mapping[str, Any],
        handle: Callable[[Receipt], _Job],
    ) -> None:
        self.runtime = runtime
        self._handle = handle
        self._job_type = runtime.registered(job_type).name
        schema = schema_of(self._registered().job_class)
        fields = [WHOLE] if schema is None else fields_of(schema)
        self._is_whole = schema is None
        start = from_json(to_json(dict(values), where="the form's values"))
        if self._is_whole:
            start = {WHOLE.name: start}
        if unknown := sorted(start.keys() - {field.name for field in fields}):
            names = ", ".join(field.name for field in fields) or "no parameters"
            raise ParameterError(f"{self._job_type} has no {', '.join(map(repr, unknown))}. It has {names}.")
        self._secrets = runtime.settings.secrets
        self.parameters: dict[str, Any] = {}
        self.problems: dict[str, str] = {}
        self.job: _Job | None = None
        self._cell: Context | None = None
        # All widgets are written from nowhere, so that what they send comes in one thread, in its order: a click on
        # Submit must not pass what was typed before it, which it would while a cell runs.
        detached().run(self._make, fields, start)

    def _make(self, fields: list[Field], start: Mapping[str, Any]) -> None:
        self._inputs = {
            field.name: Input(
                field, start.get(field.name, LEFT_OUT), secret=looks_secret(field.name, tuple(self._secrets))
            )
            for field in fields
        }
        self.inputs = {name: shown.control for name, shown in self._inputs.items()}
        self.button = widgets.Button(description="Submit", button_style="primary")
        self.button.on_click(self._clicked)
        self._note = widgets.HTML(layout={"margin": "2px 8px"})
        foot = widgets.HBox([self.button, self._note], layout={"flex_flow": "row wrap", "align_items": "center"})
        self.widget = widgets.VBox([*(shown.row for shown in self._inputs.values()), foot])
        for shown in self._inputs.values():
            shown.control.observe(self._check, "value")
        self._read()

    def __repr__(self) -> str:
        said = (f", {name}={value!r}" for name, value in mask(self.parameters, self._secrets).items())
        return f"<form of {self._job_type}{''.join(said)}>"

    def submit(self) -> _Job:
        """Submit what the form says; ``ParameterError`` when that cannot be. A click also shows the job."""
        return self._submitted()[0]

    def _submitted(self) -> tuple[_Job, Receipt]:
        self._check()
        if self.problems:
            listed = "\n".join(f"  - {name or 'parameters'}: {problem}" for name, problem in self.problems.items())
            raise ParameterError(self._masked(f"{self._job_type} refuses these parameters:\n{listed}"))
        receipt = self.runtime.submit(self._job_type, {**self.parameters})
        self.job = self._handle(receipt)
        return self.job, receipt

    # What it says, and what is wrong with that

    def _registered(self) -> Registered:
        return self.runtime.registered(self._job_type)  # of now: its cell may have been run again

    def _check(self, change: object = None) -> None:
        detached().run(self._read)

    def _read(self) -> None:
        """Read the controls, ask the job type, and show what it says."""
        said: dict[str, Any] = {}
        unread: dict[str, str] = {}
        for name, shown in self._inputs.items():
            try:
                said[name] = shown.read()
            except ValueError as exc:
                unread[name] = str(exc)
        said = {name: value for name, value in said.items() if value is not LEFT_OUT}
        if self._is_whole:
            said = said.get(WHOLE.name, {})
            if not isinstance(said, dict):
                said, unread = {}, {WHOLE.name: 'This is no JSON object, such as {"n": 3}.'}
        # Without what cannot be read the job type would miss it, and say so of a form that is one field only.
        refused = {} if self._is_whole and unread else self._refused(said)
        self.parameters, self.problems = said, {**refused, **unread}
        for name, shown in self._inputs.items():
            shown.show(self._masked(self.problems.get(name, "")))
        others = ((name, problem) for name, problem in self.problems.items() if name not in self._inputs)
        self._say(problem="\n".join(f"{name}: {problem}" if name else problem for name, problem in others))
        self.button.disabled = bool(self.problems)

    def _refused(self, said: dict[str, Any]) -> dict[str, str]:
        """What the job type has against *said*, by parameter."""
        try:
            validated(self._registered(), said, self._secrets)
        except ParameterError as exc:
            reason = exc.__context__
            if isinstance(reason, ValidationError):
                return _by_parameter(reason)
            words = str(exc if reason is None else reason)
            return {self._about(words): words}
        except Exception as exc:  # its validation is the user's own code, and perhaps half-written
            return {"": f"validate_job_parameters raised {type(exc).__name__}: {exc}"}
        return {}

    def _about(self, words: str) -> str:
        """The one parameter that is named: in quotes, or else as a word."""
        for pattern in (r"['\"`]{}['\"`]", r"(?<!\w){}(?!\w)"):
            named = [name for name in self._inputs if re.search(pattern.replace("{}", re.escape(name)), words)]
            if len(named) == 1:
                return named[0]
        return ""

    # What is shown

    def _masked(self, text: str) -> str:
        return mask_text(text, self._secrets)

    def _head(self) -> str:
        description = str(getattr(self._registered().job_class, "description", None) or "")
        return element(f"Form of {self._job_type}", [head(self._job_type, description)])

    def _say(self, problem: str = "", note: str = "") -> None:
        """Beside the button."""
        shown = Html('<div role="status" style="line-height:1.4">{}</div>').format(note)
        self._note.value = problem_html(self._masked(problem)) if problem else shown

    def _ipython_display_(self) -> None:
        ipython: Any = importlib.import_module("IPython")
        kernel = getattr(shell(), "kernel", None)
        if kernel is not None:
            # An output of its own: in a notebook that is opened again it is all that can be seen of the form.
            ipython.display.display(ipython.display.HTML(self._head()))
        ipython.display.display({**self.widget._repr_mimebundle_(), "text/plain": repr(self)}, raw=True)
        # A button has no output of its own: the job is shown in that of this cell, where the kernel lets it be chosen.
        if isinstance(getattr(kernel, "_shell_parent", None), ContextVar):
            self._cell = copy_context()

    def _clicked(self, button: object) -> None:
        self.button.disabled = True  # for as long as it takes to store the job
        try:
            _, receipt = self._submitted()
        except Exception as exc:  # whatever it is: nobody else shows what a button raises
            if not self.problems:
                self._say(problem=str(exc))
        else:
            shows = self._cell is not None and self.runtime.settings.display != "none"
            self._say(note=f"{_told(receipt)}{'' if shows else ' form.job.watch() shows it.'}")
            if self._cell is not None and shows:
                self._cell.copy().run(progress.watch, self.runtime, receipt.job_id)
        finally:
            self.button.disabled = bool(self.problems)


def _by_parameter(refusal: ValidationError) -> dict[str, str]:
    problems: dict[str, list[str]] = {}
    for error in refusal.errors(include_url=False, include_context=False):
        name, *inside = map(str, error["loc"] or ("",))
        words = "It is needed." if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
        problems.setdefault(name, []).append(f"{'.'.join(inside)}: {words}" if inside else words)
    return {name: "\n".join(several) for name, several in problems.items()}


def _told(receipt: Receipt) -> str:
    if receipt.status == "created":
        return f"Job {receipt.job_id[:8]} was submitted."
    was = f"Job {receipt.job_id[:8]} was submitted before, and is {receipt.existing_status}."
    return f"{was} form.job.rerun() does all of it again."
