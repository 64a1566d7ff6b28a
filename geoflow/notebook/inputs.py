"""The control of one parameter: a field as an ipywidget, what is said beside it, and what is wrong with it below."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from typing import Any

from geoflow.jobtypes.schema import LEFT_OUT, Field, fits
from geoflow.render.markup import Html
from geoflow.views.model import laid_out

widgets: Any = importlib.import_module("ipywidgets")  # it has no types

LONGEST_SLIDER = 10_000  # whole numbers: of more than that, a slider hits none
LARGEST = 2**53 - 1  # a whole number that a browser does not round
LABEL, CONTROL = "150px", "430px"


class Input:
    """A field's control. ``row`` is all of it, ``control`` the widget whose value is the parameter's."""

    def __init__(self, field: Field, value: Any, *, secret: bool = False) -> None:
        start = field.default if value is LEFT_OUT else value
        self._field = field if fits(field, start) else replace(field, kind="json")
        self.control = _control(self._field, start, secret)
        self.control.description = field.title
        self.control.style.description_width = LABEL
        self.control.layout.width = CONTROL
        beside = {"flex": "1 1 220px", "margin": "2px 8px"}
        line = {"flex_flow": "row wrap", "align_items": "center"}
        self._problem = widgets.HTML(layout={"display": "none", "margin": f"0 0 4px {LABEL}"})
        about = widgets.HTML(_help(field), layout=beside)
        self.row = widgets.VBox([widgets.HBox([self.control, about], layout=line), self._problem])

    def read(self) -> Any:
        """The parameter, or `LEFT_OUT`; ``ValueError`` in words for what cannot be read."""
        field, value = self._field, self.control.value
        if field.kind == "choice":
            return field.absent if value < 0 else field.choices[value]
        if field.kind == "text":
            return field.absent if value == "" and (field.optional or field.required) else value
        return _parsed(value, field) if field.kind == "json" else value

    def show(self, problem: str) -> None:
        """Say what is wrong with it; nothing when *problem* is empty."""
        self._problem.value = problem_html(problem) if problem else ""
        self._problem.layout.display = "" if problem else "none"


def problem_html(text: str) -> str:
    style = "line-height:1.4;white-space:pre-wrap;border-left:3px solid #d55e00;padding-left:6px"
    return Html('<div role="alert" style="{}"><b aria-hidden="true">✗</b> {}</div>').format(style, text)


def _help(field: Field) -> str:
    name = Html("<code>{}</code>&ensp;").format(field.name) if field.title != field.name else ""
    limits = f"({field.limits})" if field.help and field.limits else field.limits
    about = Html('<span style="display:block;line-height:1.4">{}{} <span style="opacity:.8">{}</span></span>')
    return about.format(name, field.help, limits)


def _is_nothing(value: Any) -> bool:
    return value is None or value is LEFT_OUT


def _control(field: Field, start: Any, secret: bool) -> Any:
    if field.kind == "choice":
        return _dropdown(field, start)
    if field.kind == "boolean":
        return widgets.Checkbox(start)
    if field.kind in ("integer", "number"):
        nearest_to_0 = min(max(field.low, 0), field.high)
        return _number(field, nearest_to_0 if _is_nothing(start) else start)
    if field.kind == "text":
        text = "" if _is_nothing(start) else start
        if "\n" in text:
            return widgets.Textarea(text, rows=3)
        return widgets.Password(value=text) if secret else widgets.Text(text)
    text = "" if start is LEFT_OUT or (start is None and field.optional) else laid_out(start, 50)
    rows = min(8, max(2 if field.example else 1, text.count("\n") + 1))
    return widgets.Textarea(text, rows=rows, placeholder=field.example)


def _dropdown(field: Field, start: Any) -> Any:
    # By their places: to a Dropdown, 1 and True are the same option.
    options = [(item if isinstance(item, str) else json.dumps(item), place) for place, item in enumerate(field.choices)]
    if field.optional:
        options.insert(0, ("(not given)", -1))
    elif start is LEFT_OUT:
        options.insert(0, ("(choose one)", -1))
    return widgets.Dropdown(options=options, value=field.place(start))


def _number(field: Field, start: float) -> Any:
    step = field.step or (1 if field.kind == "integer" else None)
    if field.kind == "integer" and field.high - field.low <= LONGEST_SLIDER:
        return widgets.IntSlider(start, min=field.low, max=field.high, step=step)
    if field.kind == "number" and math.isfinite(field.high - field.low):
        step = step or (field.high - field.low) / 100 or 1
        digits = max(0, 1 - math.floor(math.log10(step)))  # one more than a step changes: a value can also be typed
        shown = f".{min(digits, 12)}f"
        return widgets.FloatSlider(start, min=field.low, max=field.high, step=step, readout_format=shown)
    kind, most = {"integer": (widgets.BoundedIntText, LARGEST), "number": (widgets.BoundedFloatText, 1e300)}[field.kind]
    return kind(start, min=max(field.low, -most), max=min(field.high, most), step=step)


def _parsed(text: str, field: Field) -> Any:
    if not text.strip():
        return field.absent
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as exc:
        if field.text_too:
            return text
        raise ValueError(f"This is not JSON: {exc}. Text stands in double quotes.") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON's")
